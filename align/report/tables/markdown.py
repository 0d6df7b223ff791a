"""Tables as markdown."""

from __future__ import annotations

from collections.abc import Sequence

from align.report.tables.table import Cell, Table


def markdown(tables: Sequence[Table], notes: Sequence[str] = (), found: Sequence[str] = ()) -> str:
    """Conclusions, then each table with title and notes, then common notes."""
    parts = ["".join(f"{_plain(sentence)}\n\n" for sentence in found)] if found else []
    parts += [f"## {_plain(table.title)}\n\n{_table(table)}\n{_list(table.notes)}" for table in tables]
    return "\n".join([*parts, *([f"## Notes\n\n{_list(notes)}"] if notes else [])])


def _table(table: Table) -> str:
    head = [*table.lead, *(column.heading for column in table.columns)]
    lines = [[*map(_plain, line.lead), *map(_cell, line.cells)] for line in table.lines]
    written = [
        "| " + " | ".join(line) + " |" for line in ([_plain(name) for name in head], ["---"] * len(head), *lines)
    ]
    return "\n".join(written) + "\n"


def _cell(cell: Cell) -> str:
    paper = [f"paper {cell.paper.value:g}{'*' * bool(cell.paper.doubt)}"] if cell.paper else []
    return "<br>".join(_plain(line) for line in (cell.text, *cell.more, *paper))


def _list(lines: Sequence[str]) -> str:
    return "".join(f"- {_plain(line)}\n" for line in lines)


def _plain(text: str) -> str:
    """Escape foreign names: nothing in them ends a cell or line, or is markup."""
    shown = " ".join(text.split())
    if not shown.isprintable():
        shown = "".join(c for c in shown if c.isprintable())
    return shown.replace("|", "\\|").replace("<", "&lt;").replace("](", "]\\(")
