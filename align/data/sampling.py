"""A seeded sample of rows, stratified by role, category and source."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from align.errors import UserError
from align.rows import Row

Unit = list[Row]
"""Rows that are drawn together: all rows of one twin id, usually the two of a pair; the turns of a
conversation; or one row."""
T = TypeVar("T")


def stratified(
    rows: Sequence[Row],
    n: int,
    seed: int,
    asked: str | None = None,
    instead: str = "",
    first: Callable[[Row], Hashable] | None = None,
) -> list[Row]:
    """Draw `n` rows, in their own order; each role, category and source keeps its share of all rows.

    With `first`, the sample is stratified by its values (of a group's first row) before these keys.

    Rows of one twin id are drawn together, so the sample may have fewer than `n` rows if no further
    group fits (with pairs, one row fewer). Returns all rows if there are at most `n`. Raises UserError
    if a group is larger than `n`; `asked` is the option that sets `n`, and `instead` an alternative.
    """
    if len(rows) <= n:
        return list(rows)
    units = _units(rows)
    _refuse_larger(units, n, asked or f"rows={n}", instead)
    rng = random.Random(seed)
    by_size = _grouped(units, len)
    quotas = _shares([len(units) * len(units[0]) for units in by_size], n, rng)
    keys = KEYS if first is None else (lambda unit: first(unit[0]), *KEYS)
    drawn = {
        id(row)
        for units, quota in zip(by_size, quotas, strict=True)
        for unit in _drawn(units, keys, quota // len(units[0]), rng)
        for row in unit
    }
    room = n - len(drawn)  # left if a size's quota is not a whole number of groups
    left = [unit for unit in units if id(unit[0]) not in drawn and len(unit) <= room]
    for unit in rng.sample(left, len(left)):
        if len(unit) <= room:
            drawn |= {id(row) for row in unit}
            room -= len(unit)
    return [row for row in rows if id(row) in drawn]


def _refuse_larger(units: Sequence[Unit], n: int, asked: str, instead: str) -> None:
    """Raise UserError for a group larger than `n`: a sample without it would not represent the whole dataset."""
    largest = max(units, key=len)
    if len(largest) > n:
        raise UserError(
            f"{asked}: the rows of a twin or conversation are drawn together, and {largest[0].twin or largest[0].id} has "
            f"{len(largest)} rows; "
            f"give at least {len(largest)}{instead}"
        )


def _units(rows: Sequence[Row]) -> list[Unit]:
    units: dict[Hashable, Unit] = {}
    first: dict[str, Hashable] = {}
    for i, row in enumerate(rows):
        key: Hashable = i if row.twin is None else row.twin
        if row.follows is not None:  # the turns of a conversation
            key = first.get(row.follows, key)
        first[row.id] = key
        units.setdefault(key, []).append(row)
    return list(units.values())


def _drawn(units: Sequence[Unit], keys: Sequence[Callable[[Unit], Hashable]], n: int, rng: random.Random) -> list[Unit]:
    """Stratify by the first key, then by the next key within each value; the first key's shares are
    exact to one row.
    """
    if not keys:
        return rng.sample(units, n)
    groups = _grouped(units, keys[0])
    quotas = _shares([len(group) for group in groups], n, rng)
    return [unit for group, quota in zip(groups, quotas, strict=True) for unit in _drawn(group, keys[1:], quota, rng)]


def _roles(unit: Unit) -> Hashable:
    return tuple(row.role for row in unit)


def _category(unit: Unit) -> Hashable:
    return unit[0].category


def _source(unit: Unit) -> Hashable:
    """The dataset's own column `source` if it exists, since it is more specific; else the dataset's name."""
    return str(unit[0].columns.get("source", unit[0].source))


KEYS = (_roles, _category, _source)


def _grouped(items: Sequence[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _shares(sizes: Sequence[int], n: int, rng: random.Random) -> list[int]:
    """Divide `n` in proportion to the sizes by largest remainders; equal remainders are drawn at random."""
    total = sum(sizes)
    shares = [size * n // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(sizes[i] * n % total), rng.random()))
    for i in by_remainder[: n - sum(shares)]:
        shares[i] += 1
    return shares
