"""What a sweep would cost, and what is refused while that is estimated."""

from __future__ import annotations

import pytest

from align.cli import main
from align.config.compose import compose_run
from align.errors import UserError
from align.planning.estimate import estimate
from align.settings import PlanSettings
from align.sweep.cells import cells_of
from align.sweep.cost import cost_of
from align.sweep.grid import read_grid
from tests.support.small_run import one_long_row


def cells(*arguments):
    return cells_of(read_grid(arguments))


def test_hours_are_those_of_align_plan_for_every_run():
    hours = cost_of(cells("recipe=t_sft,mm_sft", "seed=0,1,2", "train.learning_rate=1e-3,2e-3", "lora.r=4,8"), 2).hours
    wanted = 0.0
    for recipe in ("t_sft", "mm_sft"):
        for r in (4, 8):
            run = estimate(compose_run([f"recipe={recipe}", f"lora.r={r}"]), PlanSettings(gpus=[2])).launched[0]
            wanted += 6 * 2 * run.hours["H100"]
    assert hours["H100"] == pytest.approx(wanted)


def test_what_cannot_be_estimated_is_counted_with_the_reason(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    cost = cost_of(cells("recipe=t_sft,mm_sft", "seed=0,1", f"model=mini_llava,{tmp_path}/empty", "suite=miniature"), 1)
    assert sum(cost.unknown.values()) == 4
    assert all("config.json" in why for why in cost.unknown)
    assert cost.hours


def test_a_setting_that_trl_does_not_have_is_refused_before_anything_runs(tmp_path, capsys):
    with pytest.raises(UserError, match="t_sft on mini_llava: .*learning_rat"):
        cost_of(cells("recipe=t_sft", "train.learning_rat=1e-4,2e-4"), 1)
    with pytest.raises(UserError, match="cannot be divided over 3 processes"):
        cost_of(cells("recipe=t_sft"), 3)
    assert main(["sweep", "recipe=t_sft", "train.learning_rat=1e-4,2e-4", f"output_dir={tmp_path / 'sweep'}"]) == 2
    assert "learning_rat" in capsys.readouterr().err
    assert not (tmp_path / "sweep" / "sweep" / "plan.json").exists()


def test_rows_that_would_stop_a_run_stop_the_sweep_before_it_is_planned(tiny, tmp_path, capsys):
    file = one_long_row(tmp_path)
    own = [
        "data.harmful=null",
        f"data.benign={{source: local, path: {file}, role: benign}}",
        "view=text",
    ]
    sweep = ["sweep", "recipe=t_sft", f"model={tiny('llava')}", "seed=0,1", f"output_dir={tmp_path / 'sweep'}", *own]
    assert main([*sweep, "evaluate.benchmark=[]", "hours=false"]) == 2
    assert "benign/r7: 3" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_a_choice_about_bad_rows_that_does_not_exist_stops_the_sweep_too(tmp_path, capsys):
    assert main(["sweep", "recipe=t_sft", "on_bad_row=skip", f"output_dir={tmp_path / 'sweep'}", "hours=false"]) == 2
    assert "on_bad_row=skip" in capsys.readouterr().err
