"""What cannot be compared is refused before anything is loaded or trained."""

import re

import pytest

from align.cli import main
from tests.compare.conftest import ARMS
from tests.support.small_run import one_long_row

PAPER = ["recipe=t_sft,mm_sft"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            [*PAPER, "checkpoint.vanilla=x"],
            "checkpoint.vanilla=: .* 'vanilla' .the base model.*checkpoint.<name>=",
        ),
        (
            [*PAPER, "checkpoint.safety_prompt=x"],
            "checkpoint.safety_prompt=: .* 'safety_prompt' .a defence",
        ),
        ([*PAPER, "defence=[]", "checkpoint.safety_prompt=x"], "'safety_prompt' .a defence"),
        ([*PAPER, "checkpoint.mm_dpo=x"], "'mm_dpo' .a recipe"),
        ([*PAPER, "defence=safty_prompt"], "defence=safty_prompt: unknown .did you mean 'safety_prompt'"),
        (
            [*PAPER, "defence=align.config.registry:DEFENCES,align.evaluation.defended:DEFENCES"],
            "defence=align.evaluation.defended:DEFENCES: .* 'DEFENCES' .the row of defence=align.config.registry:",
        ),
        (["track=controlled", "checkpoint.theirs=x"], "checkpoint.theirs=: .* of the paper track, .*track=paper"),
        ([ARMS, "checkpoint.theirs=x"], "checkpoint.theirs=: .* a recipe of the paper track to recipe="),
        (
            [*PAPER, "method=dpo"],
            "method=dpo: .* controlled track.* recipe=t_dpo,mm_dpo",
        ),
        ([ARMS, "override.method=dpo"], "override.method=: .* method= "),
        ([*PAPER, "override.seed=3"], "override.seed=: .* seed="),
        ([ARMS, "method=sft,dop"], "method=dop: unknown .did you mean 'dpo'"),
        (
            [*PAPER, "override.train.per_device_train_batch_size=3"],
            "train.per_device_train_batch_size=3 does not",
        ),
        ([ARMS, "method=sft,dpo", "override.train.beta=0.1"], "no setting train.beta"),
    ],
)
def test_what_cannot_be_trained_or_shown_is_refused_before_anything_is_loaded(
    model_file, tmp_path, capsys, monkeypatch, arguments, expected
):
    monkeypatch.setattr("align.commands.evaluate.run_evaluation", lambda *_: pytest.fail("something is evaluated"))
    assert main(["compare", f"model={model_file}", f"output_dir={tmp_path / 'out'}", *arguments]) == 2
    assert re.search(expected, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_recipe_is_not_called_as_a_row_without_training(model_file, tmp_path, capsys):
    recipe = tmp_path / "vanilla.yaml"
    recipe.write_text("method: sft\n")
    assert main(["compare", f"model={model_file}", f"output_dir={tmp_path / 'out'}", f"recipe={recipe}"]) == 2
    assert f"recipe={recipe}: 'vanilla' is reserved" in capsys.readouterr().err


def test_an_unknown_track_is_an_error(capsys):
    assert main(["compare", "track=papr"]) == 2
    assert "track=papr: expected paper or controlled" in capsys.readouterr().err


def test_a_row_that_cannot_be_used_stops_a_comparison_before_anything_is_trained(tiny, tmp_path, capsys):
    file = one_long_row(tmp_path)
    own = [f"override.data.own={{source: local, path: {file}, role: harmful}}", "override.view=text"]
    small = ["override.train.max_steps=1", "override.global_batch_size=2", "override.evaluate.benchmark=[mini_vsil]"]
    words = ["compare", "recipe=t_sft", f"model={tiny('llava')}", f"output_dir={tmp_path / 'out'}", *own, *small]
    assert main(words) == 2
    assert "t_sft on tiny-llava0" in (said := capsys.readouterr().err)
    assert "own/r7: 3" in said
    assert not (tmp_path / "out").exists()
