"""A prompt-only defence: the model reads it before the request, the judge does not, and answers
behind it are kept apart.
"""

import json

import pytest

from align.commands.evaluate import run_evaluation
from align.config.compose import compose_eval
from align.errors import UserError
from align.evaluation.defences import SAFETY_PROMPT, Defence
from align.rows import Row

SHOUT = Defence("shout", "BE CAREFUL")


def evaluated(model, out, *more):
    few = ["model.dtype=float32", "benchmark=mini_vsil", "limit=3", "generation.max_new_tokens=4"]
    run, _ = run_evaluation(compose_eval([f"model={model}", f"output_dir={out}", *few, *more]).config)
    return run


def asked(run):
    lines = (run.evaluation / "mini_vsil" / "responses.jsonl").open()
    return {record["id"]: record["prompt_hash"] for record in map(json.loads, lines)}


def test_it_goes_before_the_request_and_leaves_the_row_as_it_is():
    row = Row("r", "how do i use this", response="like so")
    shown = SHOUT.applied(row)
    assert shown.prompt == "BE CAREFUL\nhow do i use this"
    assert (shown.id, shown.response, row.prompt) == ("r", "like so", "how do i use this")


@pytest.mark.slow
def test_the_model_is_asked_behind_it_and_the_row_is_called_so(tiny, tmp_path):
    plain = evaluated(tiny("llava"), tmp_path / "plain")
    behind = evaluated(tiny("llava"), tmp_path / "behind", "defence=safety_prompt")
    own = evaluated(tiny("llava"), tmp_path / "own", f"defence={__name__}:SHOUT")
    assert [run.manifest()["recipe"] for run in (plain, behind)] == ["vanilla", SAFETY_PROMPT.name]
    hashes = [asked(run) for run in (plain, behind, own)]
    assert all(len({it[row_id] for it in hashes}) == 3 for row_id in hashes[0])
    with pytest.raises(UserError, match="defence"):
        evaluated(tiny("llava"), tmp_path / "behind")


def test_a_run_folder_holds_the_run_without_it(tmp_path):
    (tmp_path / "config.yaml").write_text("evaluate: {}\n")
    config = compose_eval([f"run={tmp_path}", "defence=safety_prompt"]).config
    with pytest.raises(UserError, match=f"give checkpoint={tmp_path}/checkpoint output_dir="):
        run_evaluation(config)
