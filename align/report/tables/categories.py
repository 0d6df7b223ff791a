"""Rates by category and sub-category of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np

from align.errors import UserError
from align.evaluation.benchmark import SAFETY_KINDS
from align.evaluation.metrics import wilson
from align.evaluation.stored_rows import FILE
from align.evaluation.summary import MAX_INVALID
from align.files import read_jsonl
from align.report.arms import Arm
from align.report.contrasts import RATES, Observations, contrast
from align.report.items import Items
from align.report.tables.rates import Place, by_set, heading, table_of
from align.report.tables.table import Cell, Column, Table, interval

SUB_CATEGORY = ("sub_category", "subcategory")
"""Names of the column in benchmarks."""
NOTE = (
    "`n` counts the items of a category that have a verdict. 95% intervals: Wilson's for one seed whose items share no "
    "image, else over images and seeds, with two good and two bad ones added (Agresti and Coull 1998); not corrected "
    "for the number of categories"
)

Group = Callable[[Items], Sequence[str | None]]
"""Items -> the group of each item."""


def category_tables(arms: Sequence[Arm]) -> list[Table]:
    """Tables by category (and sub-category, if known) for each track and benchmark."""
    tables = []
    for track, name, kind, having in by_set(arms):
        if kind in (*SAFETY_KINDS, "benign"):
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
    names = sorted({key for of_arm in found.values() for key in of_arm})
    if len(names) < 2:
        return None
    places: list[Place] = [(Column(key, name, key), partial(_cell_of, found, key)) for key in names]
    judged = heading([arm.row["results"][name] for arm in arms], name)
    title = f"{track.capitalize()} track, {name} by {what}, %"
    return table_of(f"{track}-{what}-{name}", title, arms, places, [judged, NOTE])


@dataclass
class Seen:
    """Items of one group, over the seeds of an arm."""

    n: int = 0
    good: list[np.ndarray] = field(default_factory=list)
    """For each seed, (n with a verdict,) bool; `clusters` has the same shapes, int."""
    clusters: list[np.ndarray] = field(default_factory=list)
    seeds: list[Any] = field(default_factory=list)

    def add(self, seed: Any, items: Items, places: np.ndarray) -> None:
        """Add the items of one more seed at `places` (n,)."""
        valid = places[items.has_verdict[places]]
        self.n += len(places)
        self.good.append(items.good[valid])
        self.clusters.append(items.clusters[valid])
        self.seeds.append(seed)

    def cell(self) -> Cell:
        """Cell with the rate; withheld if more than 5% have no verdict."""
        good, clusters = np.concatenate(self.good), np.concatenate(self.clusters)
        if not len(good) or self.n - len(good) > MAX_INVALID * self.n:
            return Cell(f"withheld n={len(good)} of {self.n}", n=len(good), withheld=True)
        if len(self.seeds) == 1 and len(np.unique(clusters)) == len(clusters):
            rate, (low, high) = float(good.mean()), wilson(int(good.sum()), len(good))
        else:
            seeds = np.repeat(self.seeds, [len(of) for of in self.good])
            found = contrast([Observations(good.astype(float), clusters, seeds)], RATES)
            rate, low, high = (found[key] for key in ("estimate", "low", "high"))
        text = f"{interval(rate, low, high)} n={len(good)}"
        return Cell(text, value=100 * rate, low=100 * low, high=100 * high, n=len(good))


def _by_group(arm: Arm, name: str, group: Group) -> dict[str, Seen]:
    found: dict[str, Seen] = {}
    for run in arm.runs:
        if name in run.row["results"]:
            items = run.items(name)
            for key, places in _places(tuple(group(items))).items():
                found.setdefault(key, Seen()).add(run.row["seed"], items, places)
    return found


@lru_cache(maxsize=16)  # most runs have the same items in the same order
def _places(groups: tuple[str | None, ...]) -> dict[str, np.ndarray]:
    """{group: indices of its items}."""
    found: dict[str, list[int]] = {}
    for place, key in enumerate(groups):
        if key is not None:
            found.setdefault(key, []).append(place)
    return {key: np.array(places) for key, places in found.items()}


def _cell_of(found: Mapping[int, Mapping[str, Seen]], key: str, arm: Arm) -> Cell:
    seen = found[id(arm)].get(key)
    return seen.cell() if seen else Cell()


def _sub_categories(arms: Sequence[Arm], name: str) -> Mapping[str, str]:
    """{row id: sub-category}, from the first run that stored its rows; empty if unknown."""
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
    found = {row_id: sub_category_of(of_row) for row_id, of_row in columns.items()}
    return {row_id: value for row_id, value in found.items() if value is not None}


def sub_category_of(columns: Mapping[str, Any]) -> str | None:
    """A row's sub-category from the benchmark's own columns; None if it has none."""
    return next((str(columns[key]) for key in SUB_CATEGORY if columns.get(key)), None)
