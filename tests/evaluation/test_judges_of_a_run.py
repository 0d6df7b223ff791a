"""The judge of a training run: what it lacks is told before the training, and a later command may replace it."""

import re
from pathlib import Path

import pytest

from align.cli import main
from align.config.compose import compose_eval, compose_run
from align.errors import UserError
from align.evaluation.judges.build import judges_of
from align.evaluation.judges.stored_settings import forget_stored
from align.evaluation.selection import selections_of
from align.run_folder import RunFolder
from align.training.preflight import missing, missing_judges

pytestmark = pytest.mark.usefixtures("own_folder")


def test_a_training_run_whose_judge_has_no_model_does_not_start():
    config = compose_run(["recipe=mm_sft", "evaluate.benchmark=mini_vsil,vlsbench"]).config
    (line,) = missing_judges(config)
    assert line.startswith(
        "evaluate.benchmark=vlsbench: judge vlsbench: no model is given. Give evaluate.judge.base_url= with"
    )
    for judge in ("none", "refusal_match"):
        assert (
            missing_judges(
                compose_run(["recipe=mm_sft", "evaluate.benchmark=vlsbench", f"evaluate.judge={judge}"]).config
            )
            == []
        )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["evaluate.benchmark=mini_benign", "evaluate.judge=llamaguard"],
            "judge llamaguard judges whether a response is safe",
        ),
        (
            ["evaluate.judge=vlsbench", "evaluate.judge.each.vlsbnech.model=x"],
            "evaluate.judge.each.vlsbnech: this judge is not",
        ),
        (["evaluate.judge=none,vlsbench"], "evaluate.judge=none,vlsbench: none means that nothing is judged"),
        (["evaluate.judge=vlsbench,llamaguard"], "judge llamaguard: its task is in the chat template of its own model"),
        (["evaluate.judge=refusal_match"], "evaluate.judge.base_url=: refusal_match uses no model"),
        (["evaluate.judge=vlsbnech"], "judge=vlsbnech: unknown (did you mean 'vlsbench'?)"),
    ],
)
def test_what_the_evaluation_would_refuse_is_told_before_the_training(arguments, expected):
    somebody = ["evaluate.judge.base_url=http://localhost:1/v1", "evaluate.judge.model=big"]
    config = compose_run(["recipe=mm_sft", "evaluate.benchmark=mini_vsil", *somebody, *arguments]).config
    (line,) = missing_judges(config)
    assert expected in line


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("model=big", "evaluate.generation.model is given without evaluate.generation.base_url"),
        (
            "top_p=0.5",
            "evaluate.generation.top_p=0.5 has no effect on greedy decoding; add evaluate.generation.do_sample=true",
        ),
        (
            "base_url=http://x/v1 model=big",
            "evaluate.generation.base_url= cannot be used: ",
        ),
    ],
)
def test_answers_that_the_evaluation_could_not_ask_for_are_told_before_the_training(tiny, setting, expected):
    settings = [f"evaluate.generation.{one}" for one in setting.split()]
    (line,) = missing(compose_run(["recipe=mm_sft", f"model={tiny('llava')}", *settings]).config)
    assert line.startswith(expected)


STORED = ["evaluate.benchmark=mini_vsil", "evaluate.judge=vlsbench"]
SHARED = ["evaluate.judge.base_url=http://x/v1", "evaluate.judge.model=big", "evaluate.judge.max_calls=9"]
EACH = ["evaluate.judge.each.vlsbench.base_url=http://x/v1", "evaluate.judge.each.vlsbench.model=big"]


def of_run(stored, *arguments):
    """The judges of a run's set as `align eval run=run` would ask them."""
    Path("run").mkdir(exist_ok=True)
    RunFolder(Path("run")).write_config(compose_run(["recipe=mm_sft", *STORED, *stored]).config)
    composed = compose_eval(["run=run", *arguments])
    forget_stored(composed)
    return judges_of(composed.config.judge, selections_of(composed.config))["mini_vsil"]


@pytest.mark.parametrize("stored", [SHARED, EACH])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [("vlsbench", "big")]),
        (["judge=refusal_match"], [("refusal_match", None)]),
        (["judge=none"], []),
        (["judge=vlsbench,refusal_match"], [("vlsbench", "big"), ("refusal_match", None)]),
        (["judge.path=guard"], [("vlsbench", "guard")]),
        (["judge.model=bigger"], [("vlsbench", "bigger")]),
        (["judge.each.vlsbench.path=guard"], [("vlsbench", "guard")]),
        (["judge=llamaguard", "judge.path=guard"], [("llamaguard", "guard")]),
        (["judge=llamaguard", "judge.each.llamaguard.path=guard"], [("llamaguard", "guard")]),
    ],
)
def test_the_judge_of_a_run_can_be_replaced_on_the_command_line(stored, arguments, expected):
    Path("guard").mkdir()
    found = [(judge.name, judge.settings.get("model")) for judge in of_run(stored, *arguments)]
    # A folder that is here is stored with its whole path.
    assert found == [(name, str(Path(model).absolute()) if model == "guard" else model) for name, model in expected]


def test_an_address_goes_over_a_stored_path():
    Path("guard").mkdir()
    (judge,) = of_run(
        ["evaluate.judge.path=guard", "evaluate.judge.batch_size=2"], "judge.base_url=http://x/v1", "judge.model=m"
    )
    assert judge.address.base_url == "http://x/v1"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["judge=refusal_match", "judge.max_cost=3"], "judge.max_cost=: refusal_match uses no model"),
        (["judge=refusal_match", "judge.each.vlsbench.model=x"], "judge.each.vlsbench: this judge is not among"),
        (["judge=llamaguard"], "judge llamaguard: no model is given"),  # big was named for another judge
    ],
)
def test_what_was_typed_beside_a_runs_settings_is_refused_without_an_effect(arguments, expected):
    with pytest.raises(UserError, match=re.escape(expected)):
        of_run(SHARED, *arguments)


def test_the_command_itself_leaves_the_stored_judge_behind(capsys):
    of_run(SHARED)
    (Path("run") / "manifest.json").write_text('{"status": "finished"}')
    assert main(["eval", "run=run", "judge=refusal_match", "dry_run=true"]) == 0
    assert "judges: refusal_match" in capsys.readouterr().out
    assert main(["eval", "run=run", "judge=refusal_match", "judge.max_calls=5", "dry_run=true"]) == 2
    assert "judge.max_calls=: refusal_match uses no model" in capsys.readouterr().err
