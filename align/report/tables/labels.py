"""Labels of responses to harmful requests, as in the paper's VLSBench table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from align.evaluation.benchmark import SAFETY_KINDS
from align.evaluation.verdicts import is_good
from align.report.arms import Arm
from align.report.names import HEADINGS, SHORT, measures
from align.report.tables.rates import Place, by_set, judged_by, paper_number, table_of
from align.report.tables.table import Cell, Column, Table

LABELS = ("refusal", "warning", "safe", "other", "unsafe", "incoherent")


def divided_tables(arms: Sequence[Arm]) -> list[Table]:
    """A table with the share of every label, for each track and benchmark of harmful requests."""
    return [
        _divided(track, name, having, [arm.row["results"][name] for arm in having])
        for track, name, kind, having in by_set(arms)
        if kind in SAFETY_KINDS
    ]


def _divided(track: str, name: str, arms: Sequence[Arm], results: Sequence[dict[str, Any]]) -> Table:
    labels = [label for label in LABELS if any(label in result["counts"] for result in results)]
    places: list[Place] = [(Column(label, name, label), partial(_share, name, label)) for label in labels]
    places.append((Column("n", name, "n"), partial(_counted, name)))
    title = f"{track.capitalize()} track, {name}: labels of responses, %"
    return table_of(f"{track}-divided-{name}", title, arms, places, _notes(name, labels, results))


def _notes(name: str, labels: Sequence[str], results: Sequence[dict[str, Any]]) -> list[str]:
    danger = HEADINGS[results[0]["kind"]].partition(":")[0]
    good = " + ".join(f"`{label}`" for label in labels if is_good(label, "harmful"))
    return [
        f"{name}: {danger} ({judged_by(results)})",
        "Shares of the responses that have a verdict; `n` counts these, and responses without a verdict next to them. "
        f"In other tables, {measures(results, SHORT)} is {good}",
    ]


def _share(name: str, label: str, arm: Arm) -> Cell:
    result, paper = arm.row["results"][name], paper_number(arm.row, name, label)
    valid = result["n"] - result["counts"].get("invalid", 0)
    if result["rate"] is None:
        return Cell("withheld", paper=paper, withheld=True)
    share = 100 * result["counts"].get(label, 0) / valid
    return Cell(f"{share:.1f}", value=share, n=valid, paper=paper)


def _counted(name: str, arm: Arm) -> Cell:
    result = arm.row["results"][name]
    invalid = result["counts"].get("invalid", 0)
    valid = result["n"] - invalid
    return Cell(f"{valid}" + (f", {invalid} without a verdict" if invalid else ""), value=valid)
