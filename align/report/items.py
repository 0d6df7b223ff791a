"""Items of an evaluation, in columns: tables of a thousand runs read millions of items."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from align.errors import UserError
from align.evaluation.metrics import proportion_interval
from align.evaluation.verdicts import is_good, role_of
from align.files import read_jsonl
from align.report.contrasts import RATES, Observations, contrast


@dataclass(frozen=True)
class Items:
    """Items that a rate counts, with one judge's labels (align/evaluation/items.py)."""

    ids: Sequence[str]
    labels: Sequence[str]
    good: np.ndarray
    """(n,) bool"""
    clusters: np.ndarray
    """(n,) int: one number for one cluster, in every benchmark and run"""
    categories: Sequence[str | None]

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, keep: np.ndarray) -> Items:
        """The items where `keep` (n,) is true, in their order."""
        return self if keep.all() else self.at(np.flatnonzero(keep).tolist())

    def at(self, places: Sequence[int]) -> Items:
        """The items at `places`, in the order of `places`."""
        index = np.asarray(places, dtype=int)
        return Items(
            [self.ids[i] for i in places],
            [self.labels[i] for i in places],
            self.good[index],
            self.clusters[index],
            [self.categories[i] for i in places],
        )

    @property
    def cluster_names(self) -> list[str]:
        """Names of the clusters."""
        return [NUMBERS.names[i] for i in self.clusters.tolist()]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"clusters": self.cluster_names}  # a process has its own numbers

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"clusters": numbered(state["clusters"])})

    @cached_property
    def has_verdict(self) -> np.ndarray:
        """(n,) bool"""
        if "invalid" not in self.labels:
            return np.ones(len(self), dtype=bool)
        return np.array([label != "invalid" for label in self.labels], dtype=bool)

    @cached_property
    def valid(self) -> Items:
        """Items with a verdict."""
        return self.where(self.has_verdict)


class _Numbers(dict[str, int]):
    """{name: its number}, assigned at the first look-up; `names` lists names by number."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __missing__(self, name: str) -> int:
        self.names.append(name)
        return self.setdefault(name, len(self))


class _Labels(dict[bytes, str]):
    """{bytes: label}, one string object for each label."""

    def __missing__(self, label: bytes) -> str:
        return self.setdefault(label, label.decode())


NUMBERS = _Numbers()
"""Numbers of the clusters."""
LABELS = _Labels()


def numbered(clusters: Sequence[str]) -> np.ndarray:
    """(n,) int: a number for each cluster, equal for equal names in all files."""
    return np.fromiter(map(NUMBERS.__getitem__, clusters), dtype=int, count=len(clusters))


@dataclass(frozen=True)
class _Asked:
    """Columns of a benchmark's items that are equal in every run: all except the labels."""

    ids: tuple[str, ...]
    clusters: np.ndarray
    categories: tuple[str | None, ...]


ASKED: dict[bytes, _Asked] = {}
"""{hash of a file without its labels: columns}.

A thousand runs on one benchmark share one entry.
"""
LABEL = re.compile(rb'"label": "([a-z_]+)", "good": (true|false)')
"""A label as evaluations write it.

It cannot match inside a JSON string, where quotes are escaped.
"""


def read_items(file: Path, summary: dict[str, Any]) -> Items:
    """Read the items that a summary counts. Raises UserError if the file is damaged or differs."""
    rest, labels, goods = _divided(file)
    asked = ASKED.get(rest)
    if asked is None:
        asked, said, good = _parsed(file)
        if (said, good) == (labels, goods):
            ASKED[rest] = asked
        labels, goods = said, good
    _refuse_other(file, Counter(zip(labels, goods, strict=True)), summary)
    return Items(asked.ids, labels, np.array(goods, dtype=bool), asked.clusters, asked.categories)


def _divided(file: Path) -> tuple[bytes, tuple[str, ...], tuple[bool, ...]]:
    """-> (hash of all but the labels, labels, whether each is good) of a file of an evaluation."""
    try:
        pieces = LABEL.split(file.read_bytes())
    except OSError:
        pieces = []  # reported when the file is parsed
    labels = tuple(map(LABELS.__getitem__, pieces[1::3]))
    rest = hashlib.sha256(b"\0".join(pieces[::3])).digest()
    return rest, labels, tuple([good == b"true" for good in pieces[2::3]])


def _parsed(file: Path) -> tuple[_Asked, tuple[str, ...], tuple[bool, ...]]:
    """-> (other columns, labels, whether each is good) of any file of items. Raises UserError."""
    records = _records(file)
    try:
        ids, labels, goods, clusters, categories = zip(*map(COLUMNS, records), strict=True)
    except (
        KeyError,
        TypeError,
        ValueError,
    ) as error:  # in this order: a line without a key, a line that is not an object, no line at all
        raise UserError(f"{file}: a line is not an item ({error!r}). Evaluate it again.") from error
    types = ((ids, {str}), (labels, {str}), (goods, {bool}), (clusters, {str}), (categories, {str, type(None)}))
    if any(not set(map(type, of)) <= expected for of, expected in types):
        raise UserError(
            f"{file}: `id`, `label`, `good`, `cluster` or `category` of a line has a wrong type. Evaluate it again."
        )
    if len(set(ids)) < len(ids):
        raise UserError(f"{file}: an id occurs twice. Evaluate it again.")
    return _Asked(ids, numbered(clusters), categories), labels, goods


COLUMNS = itemgetter("id", "label", "good", "cluster", "category")


def _refuse_other(file: Path, pairs: Counter[tuple[str, bool]], summary: dict[str, Any]) -> None:
    """Raises UserError unless items match the counts and rate of a summary.

    `pairs` counts (label, good).
    """
    found: Counter[str] = Counter()
    for (label, _), count in pairs.items():
        found[label] += count
    counted = {label: count for label, count in summary["counts"].items() if count}
    if found != counted:
        raise UserError(f"{file}: found {dict(found)}, but its summary counts {counted}. Evaluate it again.")
    role = role_of(summary["kind"])
    if any(is_good(label, role) != good for label, good in pairs):
        raise UserError(f"{file}: `good` of a line does not match its label. Evaluate it again.")
    good, valid = sum(n for (_, is_so), n in pairs.items() if is_so), pairs.total() - counted.get("invalid", 0)
    if summary["rate"] is not None and (not valid or abs(summary["rate"] - good / valid) > 1e-9):
        raise UserError(
            f"{file}: the summary's rate {summary['rate']} is not the rate of its items. Evaluate it again."
        )


def _records(file: Path) -> list[dict[str, Any]]:
    try:
        # One call of a fast parser: files of many rows are long.
        found: list[dict[str, Any]] = orjson.loads(b"[" + file.read_bytes().strip().replace(b"\n", b",") + b"]")
        return found
    except (OSError, ValueError):
        return list(read_jsonl(file))  # names the bad line


BySeed = Sequence[tuple[Any, Items]]
"""(seed, its items with a verdict)"""


def observed(by_seed: BySeed, weight: float = 1.0) -> Observations:
    """Observations for a contrast: good (1) or not (0), for each seed."""
    values = np.concatenate([items.good for _, items in by_seed]).astype(float)
    clusters = np.concatenate([items.clusters for _, items in by_seed])
    seeds = np.repeat([seed for seed, _ in by_seed], [len(items) for _, items in by_seed])
    return Observations(values, clusters, seeds, weight)


def rate_of(by_seed: BySeed) -> dict[str, float]:
    """Share of good items -> {rate, low, high}; with several seeds over items and seeds."""
    if len(by_seed) == 1:
        _, items = by_seed[0]
        low, high = proportion_interval(items.good.tolist(), items.clusters.tolist())
        return {"rate": float(items.good.mean()), "low": low, "high": high}
    found = contrast([observed(by_seed)], RATES)
    return {"rate": found["estimate"], "low": found["low"], "high": found["high"]}
