"""Safety by category and sub-category of a set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from align.errors import UserError
from align.evaluation.benchmark import SAFETY_KINDS
from align.evaluation.requests import FILE
from align.evaluation.summary import MAX_INVALID
from align.files import read_jsonl
from align.report.arms import Arm
from align.report.contrasts import RATES, contrast
from align.report.items import Items, observed
from align.report.names import is_control, sets_of
from align.report.tables.rates import Place, heading, sorted_arms, table_of
from align.report.tables.table import Cell, Column, Table, interval

SUB_CATEGORY = ("sub_category", "subcategory")
"""What sets call the column."""
NOTE = (
    "Intervals over pictures and seeds, with two made-up pictures on either side (Agresti and Coull 1998); none is corrected for "
    "their number"
)

Group = Callable[[Items], Sequence[str | None]]
"""The group of each item."""


def category_tables(arms: Sequence[Arm]) -> list[Table]:
    """Of each track and set whose items have categories, a table of these, and one of the sub-categories where they are known."""
    arms = sorted_arms(arms)
    tables = []
    for track in dict.fromkeys(arm.row["track"] for arm in arms):
        of_track = [arm for arm in arms if arm.row["track"] == track]
        for name in sets_of([arm.row for arm in of_track]):
            having = [arm for arm in of_track if name in arm.row["results"]]
            kind = having[0].row["results"][name]["kind"]
            if is_control(name) or kind not in (*SAFETY_KINDS, "benign"):
                continue
            groups: dict[str, Group] = {"category": _category}
            if known := _sub_categories(having, name):
                groups["sub-category"] = partial(_sub_category, known)
            tables += [table for what, group in groups.items() if (table := _table(track, name, having, what, group))]
    return tables


def _category(items: Items) -> Sequence[str | None]:
    return items.categories


def _sub_category(known: Mapping[str, str], items: Items) -> Sequence[str | None]:
    return [known.get(item) for item in items.ids]


def _table(track: str, name: str, arms: Sequence[Arm], what: str, group: Group) -> Table | None:
    found = {id(arm): _by_group(arm, name, group) for arm in arms}
    names = sorted({key for of_arm in found.values() for key in of_arm if key is not None})
    if len(names) < 2:
        return None
    places: list[Place] = [(Column(key, name, key), partial(_cell_of, found, key)) for key in names]
    judged = heading([arm.row["results"][name] for arm in arms], name)
    title = f"{track.capitalize()} track, {name} by {what}, %"
    return table_of(f"{track}-{what}-{name}", title, arms, places, [judged, NOTE])


def _by_group(arm: Arm, name: str, group: Group) -> dict[str | None, list[tuple[Any, Items]]]:
    found: dict[str | None, list[tuple[Any, Items]]] = {}
    for run in arm.runs:
        if name in run.row["results"]:
            items = run.items(name)
            of_items = np.array(group(items), dtype=object)
            for key in dict.fromkeys(of_items):
                found.setdefault(key, []).append((run.row["seed"], items.where(of_items == key)))
    return found


def _cell_of(found: Mapping[int, Mapping[str | None, list[tuple[Any, Items]]]], key: str, arm: Arm) -> Cell:
    return _cell(found[id(arm)].get(key, []))


def _cell(by_seed: list[tuple[Any, Items]]) -> Cell:
    n = sum(len(items) for _, items in by_seed)
    valid = [(seed, items.valid) for seed, items in by_seed]
    n_valid = sum(len(items) for _, items in valid)
    if not n:
        return Cell()
    if not n_valid or n - n_valid > MAX_INVALID * n:
        return Cell(f"withheld n={n_valid} of {n}", n=n_valid)
    found = contrast([observed(valid)], RATES)
    rate, low, high = (found[key] for key in ("estimate", "low", "high"))
    return Cell(f"{interval(rate, low, high)} n={n_valid}", (), (), 100 * rate, 100 * low, 100 * high, n_valid)


def _sub_categories(arms: Sequence[Arm], name: str) -> Mapping[str, str]:
    """{row id: its sub-category}, from the first run that kept what was asked; empty where none did, or the set has none."""
    for arm in arms:
        for run in arm.runs:
            file = run.run.evaluation / name / FILE
            if name in run.row["results"] and file.is_file():
                return _read_sub_categories(file)
    return {}


def _read_sub_categories(file: Any) -> Mapping[str, str]:
    try:
        records = list(read_jsonl(file))
        columns = {record["id"]: record["columns"] for record in records}
    except (UserError, KeyError, TypeError):
        return {}
    found = {}
    for row_id, of_row in columns.items():
        value = next((of_row[key] for key in SUB_CATEGORY if of_row.get(key)), None)
        if value is not None:
            found[row_id] = str(value)
    return found
