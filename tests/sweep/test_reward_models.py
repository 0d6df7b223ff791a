"""Sweeps of methods that learn from rewards: a reward model is trained once, by the runs that need it."""

import pytest

from align.cli import main
from align.errors import UserError
from align.run_folder import RunFolder
from align.sweep.cells import cells_of
from align.sweep.finish import finish
from align.sweep.folder import SweepFolder
from align.sweep.grid import read_grid
from align.sweep.tasks import EVALUATE, TRAIN
from align.training.needed_runs import needed_run
from tests.support.evaluated_runs import run
from tests.support.sweeps import plan_of

HELD_OUT = {"n": 8, "accuracy": 0.75, "low": 0.4, "high": 0.93, "margin": 1.5, "by_category": {}}


def typed(tmp_path, *more, hours="false", vanilla="false"):
    return [f"output_dir={tmp_path}", f"hours={hours}", f"vanilla={vanilla}", *more]


def test_runs_of_one_model_and_seed_share_a_reward_model(tmp_path):
    cells = cells_of(read_grid(typed(tmp_path, "recipe=mm_ppo,mm_grpo", "seed=0,1")))
    needed = {
        (cell.values["recipe"], cell.values["seed"]): needed_run(
            cell.composed().config, RunFolder(cell.path), "mm_reward"
        ).config.output_dir
        for cell in cells
    }
    assert len(needed) == 4
    assert needed["mm_ppo", 0] == needed["mm_grpo", 0] != needed["mm_ppo", 1] == needed["mm_grpo", 1]
    assert all(path.startswith(str(tmp_path)) for path in needed.values())
    assert not {str(cell.path) for cell in cells} & set(needed.values())


def test_a_reward_model_that_other_runs_train_is_no_run_of_the_grid(tmp_path):
    with pytest.raises(UserError, match=r"recipe=mm_reward: the runs of recipe=mm_ppo .*Remove mm_reward"):
        plan_of(typed(tmp_path, "recipe=mm_ppo,mm_reward"))
    given = "rewards.preference={reward: model, recipe: null, path: somewhere}"
    assert len(plan_of(typed(tmp_path, "recipe=mm_ppo,mm_reward", given)).rows) == 2


def test_a_reward_model_is_trained_and_not_evaluated(tmp_path):
    rows = plan_of(typed(tmp_path, "recipe=mm_reward,mm_sft", vanilla="true")).rows
    assert [[task.stage for task in row.tasks] for row in rows] == [[TRAIN], [TRAIN, EVALUATE], [EVALUATE]]
    with pytest.raises(UserError, match="recipe=mm_reward: .*tune="):
        plan_of(typed(tmp_path, "recipe=mm_reward", "lora.r=4,8", "tune=lora.r", "validate.benchmark=mini_vsil"))


def test_a_local_sweep_of_ppo_is_planned(tmp_path, capsys):
    words = ["recipe=mm_ppo,mm_grpo", "evaluate.benchmark=mini_vsil", "dry_run=true"]
    assert main(["sweep", *typed(tmp_path / "sweep", *words, vanilla="true")]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("align ")]
    assert [line.split()[1] for line in lines] == ["train", "eval", "train", "eval", "eval"]
    assert not (tmp_path / "sweep").exists()


def test_hours_say_what_they_do_not_count(tmp_path, capsys):
    words = ["recipe=mm_ppo", "dry_run=true", "evaluate.benchmark=mini_vsil"]
    assert main(["sweep", *typed(tmp_path, *words, hours="true")]) == 0
    assert "Not counted: the training of reward models that runs need (mm_reward)" in capsys.readouterr().out


def test_the_table_of_a_sweep_shows_its_reward_models(tmp_path, capsys):
    words = typed(tmp_path, "recipe=mm_reward", "seed=0,1")
    grid = read_grid(words)
    plan = plan_of(words)
    SweepFolder(tmp_path).write(plan.rows, grid.config.tune, ["align", "sweep", *words])
    for row in plan.rows:
        seed = int(row.axes["seed"])
        run(row.path, "mm_reward", view="image", method="reward", sets={}, seed=seed, held_out=HELD_OUT)
    assert {state.what for state in finish(SweepFolder(tmp_path), {})} == {"done"}
    assert "2 done" in capsys.readouterr().out
    assert "| m | MM-Reward | 1 | all pairs | 75.0 [40.0, 93.0] n=8 | 1.50 |" in (tmp_path / "table.md").read_text()
