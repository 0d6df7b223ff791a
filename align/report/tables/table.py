"""What a table is, before it is written in any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from align.report.names import percent
from align.report.paper import Published

ABSENT = "-"


@dataclass(frozen=True)
class Cell:
    """One place of a table: what it says in a line, what stands below it where there is room, and its numbers."""

    text: str = ABSENT
    more: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    """Of these what must stand even where there is little room."""
    value: float | None = None
    """As shown: a rate in percent, other values in their set's unit; None where nothing can be said, or it is withheld."""
    low: float | None = None
    high: float | None = None
    n: int | None = None
    paper: Published | None = None
    """What the paper prints of the same model, method and set."""


@dataclass(frozen=True)
class Column:
    """A column: its short name, the group that it stands in, what it shows in full, and in a word where room is dear."""

    name: str
    group: str
    heading: str
    short: str = ""


@dataclass(frozen=True)
class Line:
    """A line: whom it is of, in full (`lead`) and where room is dear (`label`, below the headings `group` and `block`)."""

    lead: tuple[str, ...]
    label: str
    cells: Sequence[Cell]
    group: str = ""
    block: str = ""


@dataclass(frozen=True)
class Table:
    """Lines over columns; `lead` are the heads of what says whom a line is of."""

    name: str
    title: str
    lead: tuple[str, ...]
    columns: Sequence[Column]
    lines: Sequence[Line]
    notes: Sequence[str] = field(default_factory=tuple)


def interval(rate: float, low: float, high: float) -> str:
    """0.975, 0.943, 0.988 -> 97.5 [94.3, 98.8]"""
    return f"{percent(rate)} [{percent(low)}, {percent(high)}]"
