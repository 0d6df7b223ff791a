"""The hours on docs/reproduce.md are those that `align plan` and `align sweep` compute today."""

import re
from functools import cache
from pathlib import Path

import pytest

from align.cli import main
from align.planning.estimate import PEAKS
from align.sweep.cells import cells_of
from align.sweep.cost import cost_of
from align.sweep.grid import read_grid

DOCS = Path(__file__).parents[2] / "docs"
PAGE, OTHER = (DOCS / name for name in ("reproduce.md", "recipes.md"))
MODELS, RECIPES, GPUS = (
    found.split(",")
    for found in re.search(
        r"^    align plan model=(\S+) recipe=(\S+) plan\.gpus=(\S+) plan\.format=md$", PAGE.read_text(), re.MULTILINE
    ).groups()
)
QUICK = "mm_dpo"
"""The recipe that is estimated whenever tests run; the others take their time."""


def lines(text):
    """{(model, recipe): [steps, hours on each GPU]} of a table of runs."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    head = next(of for of in cells if {"recipe", "steps"} <= set(of))
    return {(of[0], of[1]): [of[head.index("steps")], *of[-len(PEAKS) :]] for of in cells if of[0] in MODELS}


@cache
def on_page(file):
    return lines(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=[] if name == QUICK else [pytest.mark.slow]) for name in RECIPES]
)
def test_hours_of_training_are_those_that_the_command_above_them_prints(recipe, capsys):
    words = [f"model={','.join(MODELS)}", f"recipe={recipe}", f"plan.gpus={','.join(GPUS)}", "plan.format=md"]
    assert main(["plan", *words]) == 0
    assert lines(capsys.readouterr().out) == {run: of for run, of in on_page(PAGE).items() if run[1] == recipe}


def test_there_is_a_line_for_each_run_of_the_command():
    assert set(on_page(PAGE)) == {(model, recipe) for model in MODELS for recipe in RECIPES}


def test_both_pages_with_hours_say_the_same():
    """docs/recipes.md has them on 1, 4 and 8 GPUs."""
    for run, shown in on_page(PAGE).items():
        assert shown == [re.sub(r" / \S+ / ", " / ", cell) for cell in on_page(OTHER)[run]], run


def grids():
    """(arguments, number of runs, GPU hours on each GPU) of every line of the table of grids."""
    line = r"^\| `(grid=paper[^`]*)` \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$"
    found = re.findall(line, PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [(cells_of(read_grid(arguments.split())), int(runs), hours) for arguments, runs, *hours in found]


def test_gpu_hours_of_the_grids_are_the_sums_of_their_runs():
    assert len(grids()) == 3
    for cells, runs, shown in grids():
        assert len(cells) == runs
        of_runs = [on_page(PAGE)[cell.values["model"]["name"], cell.values["recipe"]][1:] for cell in cells]
        sums = [sum(float(of[place].split(" / ")[0]) for of in of_runs) for place in range(len(PEAKS))]
        assert [float(hours) for hours in shown] == pytest.approx(sums, rel=0.04)  # these are rounded figures


@pytest.mark.long
@pytest.mark.slow
def test_gpu_hours_of_the_grids_are_those_of_a_dry_run():
    for cells, _, shown in grids():
        assert shown == [f"{hours:.2g}" for hours in cost_of(cells, 8).hours.values()]
