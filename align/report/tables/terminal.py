"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from align.report.tables.table import Cell, Table


def print_tables(tables: Sequence[Table], full: bool = True) -> None:
    """Print each table with its title, headings and notes; without `full` the table alone."""
    console, said = Console(), set[str]()
    for table in tables:
        console.print(_grid(table))
        lines = [*(column.heading for column in table.columns if column.heading != column.name), *table.notes]
        for line in lines if full else []:
            if line not in said:
                said.add(line)
                console.print(line, highlight=False, markup=False, soft_wrap=True)


def _grid(table: Table) -> Grid:
    rates = any(cell.low is not None for line in table.lines for cell in line.cells)
    grid = Grid(title=Text(table.title), title_justify="left", show_lines=rates)
    several = len({line.group for line in table.lines}) > 1
    grid.add_column("arm", no_wrap=not several)
    for column in table.columns:
        under = f"\n{column.short}" if column.short else ""
        grid.add_column(Text(f"{column.name}{under}"), justify="right", overflow="fold")
    for line in table.lines:
        label = f"{line.group} {line.label}" if several else line.label
        grid.add_row(Text(label), *(Text(_cell(cell)) for cell in line.cells))
    return grid


def _cell(cell: Cell) -> str:
    if cell.value is None or cell.low is None or cell.high is None:
        lines = [cell.text.replace(" (", "\n(").replace(" n=", "\nn="), *cell.short]
    else:
        n = [f"n={cell.n}"] if cell.n else []
        lines = [f"{cell.value:.1f}", f"{cell.low:.0f}-{cell.high:.0f}", *n, *cell.short]
    paper = [f"paper {cell.paper.value:g}{'*' * bool(cell.paper.doubt)}"] if cell.paper else []
    return "\n".join([*lines, *paper])
