"""A few rows of a set that divide as the whole set does: a seeded sample, stratified by role, category and source."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from align.errors import UserError
from align.rows import Row

Unit = list[Row]
"""Rows that are drawn together: all of one twin id, as a rule the two halves of a pair; or one row."""
T = TypeVar("T")


def stratified(
    rows: Sequence[Row],
    n: int,
    seed: int,
    asked: str | None = None,
    instead: str = "",
    first: Callable[[Row], Hashable] | None = None,
) -> list[Row]:
    """`n` of the rows, in their own order: of each role, category and source as many as is their share of all rows.

    With `first` its values have their shares before these, of a group that of its first row.

    Rows of one twin id are drawn together, so that fewer than `n` may come, as many as no further group has room in: of pairs one row.
    All rows where there are no more than `n`. Raises UserError where a group is larger than `n`; `asked` is the option that says `n`,
    and `instead` what else may be given.
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
    room = n - len(drawn)  # where the quota of a size is no whole number of groups
    left = [unit for unit in units if id(unit[0]) not in drawn and len(unit) <= room]
    for unit in rng.sample(left, len(left)):
        if len(unit) <= room:
            drawn |= {id(row) for row in unit}
            room -= len(unit)
    return [row for row in rows if id(row) in drawn]


def _refuse_larger(units: Sequence[Unit], n: int, asked: str, instead: str) -> None:
    """A sample without the groups that do not fit would not divide as the whole set does. Raises UserError."""
    largest = max(units, key=len)
    if len(largest) > n:
        raise UserError(
            f"{asked}: the rows of a twin are drawn together, and twin {largest[0].twin} has {len(largest)} rows; "
            f"ask for at least {len(largest)} rows{instead}"
        )


def _units(rows: Sequence[Row]) -> list[Unit]:
    units: dict[Hashable, Unit] = {}
    for i, row in enumerate(rows):
        units.setdefault(i if row.twin is None else row.twin, []).append(row)
    return list(units.values())


def _drawn(units: Sequence[Unit], keys: Sequence[Callable[[Unit], Hashable]], n: int, rng: random.Random) -> list[Unit]:
    """Divided by the first key, then within each of its values by the next: the first one's shares are right to a row."""
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
    """A set's own column of that name says more than the name of the set."""
    return str(unit[0].columns.get("source", unit[0].source))


KEYS = (_roles, _category, _source)


def _grouped(items: Sequence[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _shares(sizes: Sequence[int], n: int, rng: random.Random) -> list[int]:
    """`n` divided in proportion to the sizes: whole shares first, then one each for the largest remainders, equal ones by lot."""
    total = sum(sizes)
    shares = [size * n // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(sizes[i] * n % total), rng.random()))
    for i in by_remainder[: n - sum(shares)]:
        shares[i] += 1
    return shares
