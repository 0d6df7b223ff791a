"""Reward models in tables, pages and comparisons: their accuracy, and no row of safety results."""

import json

import pytest
import torch

from align.cli import main
from align.commands import evaluate
from align.commands.arms import plan
from align.config.compose import compose, compose_run
from align.errors import UserError
from align.files import write_json
from align.models.scalar_head import write_head
from align.report.names import display_name
from align.report.page.figures.marks import looks
from align.report.reward_models import reward_models_of
from align.run_folder import RunFolder
from align.settings import CompareConfig
from tests.support.evaluated_runs import made, run
from tests.support.pages import Elements
from tests.support.table_lines import GUARD, YES, line, table

HELD_OUT = {"n": 8, "accuracy": 0.75, "low": 0.4, "high": 0.93, "margin": 1.5}
HELD_OUT |= {
    "by_category": {
        "fraud": {"n": 4, "accuracy": 1.0, "low": 0.5, "high": 1.0},
        "<b>war</b>": {"n": 4, "accuracy": 0.5, "low": 0.15, "high": 0.85},
    }
}


def reward_model(folder, held_out=HELD_OUT):
    """The run of a reward model as training leaves it."""
    return run(folder, name="mm_reward", view="image", method="reward", held_out=held_out, sets={})


@pytest.fixture
def runs(tmp_path):
    run(tmp_path / "runs" / "ppo", name="mm_ppo", view="image", method="ppo", model="m")
    reward_model(tmp_path / "runs" / "reward")
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("t_ppo", "T-PPO"),
        ("mm_ppo", "MM-PPO"),
        ("t_grpo", "T-GRPO"),
        ("mm_grpo", "MM-GRPO"),
        ("mm_kto", "MM-KTO"),
        ("t_orpo", "T-ORPO"),
        ("mm_simpo", "MM-SimPO"),
    ],
)
def test_names_of_methods(name, shown):
    assert display_name(name) == shown


def test_a_method_has_one_colour_with_and_without_images():
    rows = [
        {"name": f"{prefix}_{method}", "method": method, "view": view, "track": "paper"}
        for prefix, view in (("t", "text"), ("mm", "image"))
        for method in ("sft", "dpo", "unlearning", "safe_unlearning", "ppo", "grpo", "kto", "orpo", "simpo")
    ]
    look = looks(rows)
    of = {row["name"]: look(row) for row in rows}
    assert len({(one.colour, one.marker, one.filled) for one in of.values()}) == len(rows)
    assert (of["t_grpo"].colour, of["t_grpo"].filled) == (of["mm_grpo"].colour, False)


def test_the_papers_ppo_is_next_to_ours(tmp_path):
    sets = {"vlsbench": ("vsil_free", YES), "safebench": ("vsil", YES)}
    arms = made(
        *(
            run(tmp_path / name, name=name, method=method, view=view, sets=sets, model="llava_7b", judge=GUARD)
            for name, method, view in (
                ("mm_ppo", "ppo", "image"),
                ("t_ppo", "ppo", "text"),
                ("mm_grpo", "grpo", "image"),
            )
        )
    )
    found = table(arms, "paper")
    assert {name: cell.paper.value for name, cell in line(found, "MM-PPO").items()} == {
        "vlsbench": 35.47,
        "safebench": 96.4,
    }
    for other in ("T-PPO", "MM-GRPO"):
        assert {cell.paper for cell in line(found, other).values()} == {None}


def test_a_reward_model_has_a_table_of_its_own(runs, capsys):
    assert main(["table", f"runs={runs}"]) == 0
    shown = capsys.readouterr().out
    assert "not evaluated yet" not in shown
    assert "## Reward models" in shown
    assert "| m | MM-Reward | 0 | all pairs | 75.0 [40.0, 93.0] n=8 | 1.50 |" in shown
    assert "| m | MM-Reward | 0 | fraud | 100.0 [50.0, 100.0] n=4 | - |" in shown
    assert "- reward model MM-Reward of m, seed 0: 75.0 [40.0, 93.0] % of n=8 held-out pairs" in shown
    rates = shown.split("## ")[1]
    assert "MM-PPO" in rates
    assert "MM-Reward" not in rates


def test_json_has_the_reward_models(runs, capsys):
    assert main(["table", f"runs={runs}", "format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["held_out"]["accuracy"] for one in found["reward_models"]] == [0.75]
    assert [row["name"] for row in found["rows"]] == ["mm_ppo"]


@pytest.mark.parametrize("form", ["md", "csv", "json", "latex"])
def test_a_folder_may_have_only_reward_models(tmp_path, form, capsys):
    reward_model(tmp_path / "a", held_out={"n": 0})
    assert main(["table", f"runs={tmp_path}", f"format={form}"]) == 0
    out, err = capsys.readouterr()
    assert "no pairs were held out" in out + err


def test_the_page_shows_them_too(runs):
    assert main(["report", f"runs={runs}"]) == 0
    text = (runs / "report.html").read_text()
    parsed = Elements(text)
    assert "MM-Reward seed 0: all pairs" in parsed.text
    assert "MM-Reward seed 0: <b>war</b>" in parsed.text
    assert "Reward models" in parsed.text


def test_a_page_of_reward_models_alone(tmp_path):
    reward_model(tmp_path / "a")
    assert main(["report", f"runs={tmp_path}"]) == 0
    assert "75.0" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("value", [{"n": 8, "accuracy": 7}, {"n": 8}, HELD_OUT | {"by_category": {"a": 1}}, "much"])
def test_a_damaged_accuracy_is_named(runs, value, capsys):
    manifest = RunFolder(runs / "reward").manifest()
    write_json(runs / "reward" / "manifest.json", manifest | {"held_out": value})
    assert main(["table", f"runs={runs}"]) == 0
    shown = capsys.readouterr().out
    assert "reward: damaged" in shown
    assert "manifest.json" in shown
    assert "## Reward models" not in shown


def test_a_reward_model_is_no_arm_of_a_comparison():
    with pytest.raises(UserError, match="recipe=mm_reward: .*recipe=mm_ppo"):
        plan(compose(CompareConfig, ["recipe=mm_reward"]))


def test_a_comparison_shows_the_reward_models_that_its_runs_learned_from(tmp_path):
    it = reward_model(tmp_path / "reward")
    learner = run(tmp_path / "ppo", name="mm_ppo", view="image", method="ppo", rewards={"preference": "0" * 16})
    words = ["recipe=mm_ppo", "model=mini_llava", f"rewards.preference.path={it.path}"]
    learner.write_config(compose_run(words).config)
    assert [one.run.path for one in reward_models_of([learner, learner])] == [it.path]


@pytest.mark.parametrize("given", ["run={run}", "checkpoint={run}/checkpoint"])
def test_a_reward_model_is_not_evaluated(tmp_path, given):
    it = reward_model(tmp_path / "reward")
    it.write_config(compose_run(["recipe=mm_reward", "model=mini_llava"]).config)
    it.weights.mkdir()
    write_head(torch.nn.Linear(2, 1, bias=False), it.weights, {})
    with pytest.raises(UserError, match=r"reward model.*align eval reward="):
        evaluate.main([given.format(run=it.path), "benchmark=mini_vsil"])
