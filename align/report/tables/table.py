"""Tables before they are written in a format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from align.report.names import percent
from align.report.paper import Published

ABSENT = "-"


@dataclass(frozen=True)
class Cell:
    """A cell: its text in one line, further lines where there is room, and its numbers."""

    text: str = ABSENT
    more: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    """Further lines that are always shown."""
    value: float | None = None
    """As shown: a rate in percent, other values in their own unit; None if withheld or unknown."""
    low: float | None = None
    high: float | None = None
    n: int | None = None
    paper: Published | None = None
    """The paper's number for the same model, method and benchmark."""
    withheld: bool = False
    """Too many items have no verdict; `bounded` if the text has the lowest and highest rate that is possible."""
    bounded: bool = False


@dataclass(frozen=True)
class Column:
    """A column: short name, group, full heading, and a one-word heading for narrow tables."""

    name: str
    group: str
    heading: str
    short: str = ""


@dataclass(frozen=True)
class Line:
    """A line: its name in full (`lead`), or short (`label`, below headings `group` and `block`)."""

    lead: tuple[str, ...]
    label: str
    cells: Sequence[Cell]
    group: str = ""
    block: str = ""


@dataclass(frozen=True)
class Table:
    """Lines and columns; `lead` are the headings of the columns that name a line."""

    name: str
    title: str
    lead: tuple[str, ...]
    columns: Sequence[Column]
    lines: Sequence[Line]
    notes: Sequence[str] = field(default_factory=tuple)


def interval(rate: float, low: float, high: float) -> str:
    """0.975, 0.943, 0.988 -> 97.5 [94.3, 98.8]"""
    return f"{percent(rate)} [{percent(low)}, {percent(high)}]"
