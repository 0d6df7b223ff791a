"""The table of reward models: accuracy on held-out pairs, in all and by category."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from align.report.names import display_name, sorted_rows
from align.report.reward_models import accuracy_of
from align.report.run_results import Evaluated
from align.report.tables.table import Cell, Column, Line, Table, interval

LEAD = ("model", "reward model", "seed", "category")
ALL = "all pairs"
COLUMNS = [
    Column("accuracy", "", "accuracy % [95% interval]", "%"),
    Column("margin", "", "mean reward of the chosen minus that of the rejected response"),
]
NOTE = (
    "Pairs that were held out from training. Accuracy: share of pairs whose chosen response has the higher reward; "
    "equal rewards are wrong. 95% intervals, clustered by item"
)


def reward_model_tables(runs: Sequence[Evaluated]) -> list[Table]:
    """One table of all reward models; no table without one."""
    by_row = {id(run.row): run for run in runs}
    ordered = [by_row[id(row)] for row in sorted_rows([run.row for run in runs])]
    lines = [line for run in ordered for line in _lines(run)]
    return [Table("reward-models", "Reward models", LEAD, COLUMNS, lines, [NOTE])] if lines else []


def _lines(run: Evaluated) -> Iterator[Line]:
    found = accuracy_of(run)
    if found is None:
        yield _line(run, ALL, Cell("no held-out pairs"), Cell())
        return
    yield _line(run, ALL, _accuracy(found), Cell(f"{found['margin']:.2f}", value=found["margin"]))
    if len(found["by_category"]) > 1:
        for name, of_category in found["by_category"].items():
            yield _line(run, name, _accuracy(of_category), Cell())


def _line(run: Evaluated, category: str, *cells: Cell) -> Line:
    row, name = run.row, display_name(run.row["name"])
    label = f"{name} seed {row['seed']}: {category}"
    return Line((row["model"], name, str(row["seed"]), category), label, cells, row["model"])


def _accuracy(found: dict[str, Any]) -> Cell:
    rate, low, high = (100 * found[key] for key in ("accuracy", "low", "high"))
    text = f"{interval(found['accuracy'], found['low'], found['high'])} n={found['n']}"
    return Cell(text, (), (), rate, low, high, found["n"])
