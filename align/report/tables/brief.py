"""The small table at the end of a comparison: arms, and as many benchmarks as fit the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from align.report.arms import Arm
from align.report.names import SHORT, Rows, is_control, measures, sets_of
from align.report.tables.cells import rate_cell
from align.report.tables.rates import labels, sorted_arms
from align.report.tables.table import Cell

WITH_INTERVAL = ("vsil", "vsil_free")
"""Kinds of benchmarks that are shown with intervals: the question is about them."""
HEADING = 9
"""Most characters in a line of a heading."""
GAP = 2
"""Blanks between columns: one of padding, one of the box."""


def print_brief(arms: Sequence[Arm], console: Console | None = None) -> None:
    """Print arms in lines and benchmarks in columns, and name the benchmarks that do not fit."""
    console = console or Console()
    arms = sorted_arms(arms)
    rows = [arm.row for arm in arms]
    label = labels(rows)
    several = len({row["model"] for row in rows}) > 1
    names = [f"{row['model']} {label(row)}" if several else label(row) for row in rows]
    columns = {name: [heading(rows, name), *(_shown(arm, name) for arm in arms)] for name in _columns(rows)}
    shown = _fitting(columns, console.width - max(len(name) for name in names))
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_edge=False)
    grid.add_column("arm", overflow="fold")
    for name in shown:
        grid.add_column(Text(columns[name][0]), justify="right", no_wrap=True)
    for i, (arm, name) in enumerate(zip(arms, names, strict=True)):
        last = i + 1 == len(arms) or arms[i + 1].row["track"] != arm.row["track"]
        grid.add_row(Text(name), *(Text(columns[column][i + 1]) for column in shown), end_section=last)
    console.print(grid)
    if left := [name for name in columns if name not in shown]:
        console.print(f"Not shown (terminal too narrow): {', '.join(left)}", markup=False, highlight=False)


def _columns(rows: Rows) -> list[str]:
    return [name for name in sets_of(rows) if not is_control(name)]


def heading(rows: Rows, name: str) -> str:
    """A benchmark's name and what its rate measures, in short lines."""
    results = [row["results"][name] for row in rows if name in row["results"]]
    counted = f"{measures(results, SHORT)}\N{NO-BREAK SPACE}%"
    return "\n".join([*_lines(name.replace("_", "_ ").split(" ")), *_lines(f"{word} " for word in counted.split(" "))])


def _lines(parts: Iterable[str]) -> list[str]:
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1] + part.rstrip()) > HEADING:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def _shown(arm: Arm, name: str) -> str:
    """A rate, with its 95% interval for the kinds in WITH_INTERVAL."""
    result = arm.row["results"].get(name)
    cell: Cell = rate_cell(result, None)
    if result is None or cell.value is None:
        return cell.text
    if result["kind"] not in WITH_INTERVAL or cell.low is None or cell.high is None:
        return f"{cell.value:.1f}"
    return f"{cell.value:.1f} ({cell.low:.0f}-{cell.high:.0f})"


def _fitting(columns: dict[str, list[str]], room: int) -> list[str]:
    """The first columns that fit, at least one."""
    shown: list[str] = []
    for name, texts in columns.items():
        room -= GAP + max(len(line) for text in texts for line in text.split("\n"))
        if room < 0 and shown:
            break
        shown.append(name)
    return shown
