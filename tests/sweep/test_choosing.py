"""Settings are chosen by validation alone, and the choice is recorded."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from align.errors import UserError
from align.sweep.choosing import choose, looked_at_twice
from align.sweep.folder import SweepFolder
from align.sweep.state import Job, lacking
from tests.support.sweeps import judged, plan_of, trained

VALIDATION = ["validate.benchmark=mini_twin,mini_benign"] + [
    f"validate.settings.mini_{name}.subset=validation" for name in ("twin", "benign")
]
GRID = [
    "recipe=t_sft,mm_sft",
    "seed=0,1",
    "train.learning_rate=1e-4,2e-4,3e-4",
    "tune=train.learning_rate",
    "vanilla=false",
]


@pytest.fixture
def sweep(tmp_path):
    """(Its folder, its plan) of two recipes, two seeds and three learning rates."""
    plan = plan_of([*GRID, *VALIDATION, "evaluate.benchmark=mini_twin", f"output_dir={tmp_path}"])
    return SweepFolder(tmp_path), plan


def validate(plan, rates):
    """Give every run whose (recipe, seed, learning rate) is in `rates` these rates on the two sets."""
    for row in plan.rows:
        key = tuple(row.axes.get(name) for name in ("recipe", "seed", "train.learning_rate"))
        if key in rates:
            trained(row.path)
            for name, rate in zip(("mini_twin", "mini_benign"), rates[key], strict=True):
                judged(row.path / "validation/evaluation", name, rate, asked=f"validation of {name}")


def test_the_best_mean_over_sets_and_seeds_is_chosen_for_each_cell(sweep):
    folder, plan = sweep
    validate(
        plan,
        {
            ("t_sft", "0", "1e-4"): (0.5, 0.5), ("t_sft", "1", "1e-4"): (0.5, 0.5),
            ("t_sft", "0", "2e-4"): (1.0, 0.0), ("t_sft", "1", "2e-4"): (0.8, 0.4),  # 0.55
            ("t_sft", "0", "3e-4"): (1.0, 1.0),  # seed 1 lacks: it cannot be chosen, however good it looks
            ("mm_sft", "0", "1e-4"): (0.3, 0.3), ("mm_sft", "1", "1e-4"): (0.3, 0.3),
            ("mm_sft", "0", "2e-4"): (0.3, 0.3), ("mm_sft", "1", "2e-4"): (0.3, 0.3),
            ("mm_sft", "0", "3e-4"): (0.1, 0.3), ("mm_sft", "1", "3e-4"): (0.3, None),
        },
    )  # fmt: skip
    # The reported sets say otherwise, and nobody asks them.
    for row in plan.rows:
        if row.axes.get("train.learning_rate") == "3e-4":
            judged(row.path / "evaluation", "mini_twin", 1.0)
    t_sft, mm_sft = choose(folder, plan, {})
    assert (t_sft["cell"], t_sft["chosen"]) == (
        {"recipe": "t_sft", "model": "mini_llava"},
        {"train.learning_rate": "2e-4"},
    )
    assert [candidate["score"] for candidate in t_sft["candidates"]] == [0.5, pytest.approx(0.55), None]
    assert len(t_sft["candidates"][2]["not_validated"]) == 1
    assert mm_sft["chosen"] == {"train.learning_rate": "1e-4"}  # the first of equals
    assert json.loads((folder.path / "chosen.json").read_text())["cells"] == [t_sft, mm_sft]


def test_chosen_runs_are_found_by_links_which_follow_a_later_choice(sweep):
    folder, plan = sweep
    chosen = [row for row in plan.rows if row.chosen]
    assert len(chosen) == 4
    assert all(lacking(row.tasks[0]) for row in chosen)
    rates = {("t_sft", seed, "1e-4"): (0.1, 0.1) for seed in ("0", "1")}
    validate(plan, rates)
    choose(folder, plan, {})
    link = next(row.path for row in chosen if row.axes["recipe"] == "t_sft" and row.axes["seed"] == "1")
    run = next(row.path for row in plan.rows if tuple(row.axes.values()) == ("t_sft", "mini_llava", "1", "1e-4"))
    assert link.resolve() == run
    assert not next(row.path for row in chosen if row.axes["recipe"] == "mm_sft").exists()
    judged(run / "evaluation", "mini_twin", 0.7)
    assert lacking(next(row for row in chosen if row.path == link).tasks[0]) == []
    validate(plan, {("t_sft", seed, "3e-4"): (0.2, 0.1) for seed in ("0", "1")})
    choose(folder, plan, {})
    assert "3e-4" in next(row.axes["train.learning_rate"] for row in plan.rows if row.path == link.resolve())


def test_a_link_that_an_evaluation_reads_stays_as_it_is(sweep):
    folder, plan = sweep
    validate(plan, {("t_sft", seed, "1e-4"): (0.1, 0.1) for seed in ("0", "1")})
    choose(folder, plan, {})
    links = [row.path for row in plan.rows if row.chosen and row.path.exists()]
    before = [link.resolve() for link in links]
    validate(plan, {("t_sft", seed, "3e-4"): (0.2, 0.1) for seed in ("0", "1")})
    choose(folder, plan, {(link, "evaluate"): Job("9_1", True) for link in links})
    assert [link.resolve() for link in links] == before
    choose(folder, plan, {(link, "evaluate"): Job("9_1", False) for link in links})
    assert [link.resolve() for link in links] != before


def test_nothing_is_chosen_among_runs_that_were_validated_differently(sweep):
    folder, plan = sweep
    rates = {("t_sft", seed, rate): (0.5, 0.5) for seed in ("0", "1") for rate in ("1e-4", "2e-4")}
    validate(plan, rates)
    run = next(row for row in plan.rows if row.axes.get("train.learning_rate") == "2e-4")
    summary = run.path / "validation/evaluation/mini_twin/summary.rule.json"
    summary.write_text(summary.read_text().replace('"n": 10', '"n": 4'))
    record = choose(folder, plan, {})[0]
    assert (record["chosen"], record["validated_differently"]) == (None, ["mini_twin"])


def test_a_damaged_validation_is_none(sweep):
    folder, plan = sweep
    validate(plan, {("t_sft", seed, rate): (0.5, 0.5) for seed in ("0", "1") for rate in ("1e-4", "2e-4")})
    run = next(row for row in plan.rows if row.axes.get("train.learning_rate") == "1e-4")
    (run.path / "validation/evaluation/mini_twin/summary.rule.json").write_text("[]")
    record = choose(folder, plan, {})[0]
    assert record["chosen"] == {"train.learning_rate": "2e-4"}
    assert record["candidates"][0]["not_validated"] == [str(run.path)]


def test_only_the_grid_at_hand_is_chosen_from(tmp_path):
    folder = SweepFolder(tmp_path)
    small = [*GRID, *VALIDATION, "evaluate.benchmark=mini_twin", f"output_dir={tmp_path}"]
    plans = []
    for steps in (2, 4):
        plan = plan_of([*small, f"train.max_steps={steps}"])
        plans.append(folder.write(plan.rows, plan.tune, []))
    validate(plans[0], {("t_sft", seed, "1e-4"): (0.9, 0.9) for seed in ("0", "1")})
    validate(replace(plans[1], rows=plans[1].current), {("t_sft", seed, "2e-4"): (0.2, 0.2) for seed in ("0", "1")})
    assert choose(folder, folder.read(), {})[0]["chosen"] == {"train.learning_rate": "2e-4"}


def test_choosing_by_what_is_reported_is_refused(tmp_path):
    typed = [*GRID, "validate.benchmark=mini_twin", "evaluate.benchmark=mini_twin,mini_vsil", f"output_dir={tmp_path}"]
    with pytest.raises(
        UserError, match=r"validate.benchmark=mini_twin: settings would be chosen by rows that are reported"
    ):
        plan_of(typed)
    with pytest.raises(
        UserError, match="validate.benchmark=mini_twin: .* rows that are reported"
    ):  # a part of them is no better
        plan_of([*typed, "validate.settings.mini_twin.limit=5"])
    with pytest.raises(
        UserError, match="validate.benchmark=mini_twin: .* rows that are reported"
    ):  # what is said of the evaluation holds for the validation
        plan_of([*typed, "evaluate.settings.mini_twin.subset=test"])
    with pytest.raises(UserError, match="validate.judge=none: "):
        plan_of([*GRID, *VALIDATION, "validate.judge=none", f"output_dir={tmp_path}"])
    plan_of([*typed, "validate.settings.mini_twin.subset=validation"])


def test_rows_that_were_validated_on_and_are_reported_are_named(sweep):
    _, plan = sweep
    validate(plan, {("t_sft", "0", "1e-4"): (0.5, 0.5)})
    run = next(row.path for row in plan.rows if (row.path / "validation").is_dir())
    judged(run / "evaluation", "mini_twin", 0.5, asked="something else")
    assert looked_at_twice(plan) == []
    judged(run / "evaluation", "mini_twin", 0.5, asked="validation of mini_twin")
    assert looked_at_twice(plan) == ["mini_twin: settings were chosen by validation on 1 rows that are also reported"]
