r"""Tables as LaTeX with booktabs and graphicx, one `table` each, to \input into a paper."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from align.evaluation.summary import MAX_INVALID
from align.report.tables.table import Cell, Column, Line, Table

PREAMBLE = (
    "% \\usepackage{booktabs,graphicx}  (for names in non-Latin scripts use XeLaTeX or LuaLaTeX with a suitable font)"
)
PLUS_MINUS = " +- "
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def latex(tables: Sequence[Table], notes: Sequence[str] = ()) -> str:
    """Each table in its own environment; common notes are comments at the end."""
    return "\n\n".join([PREAMBLE, *map(_table, tables), *([_comments(notes)] if notes else [])]) + "\n"


def _table(table: Table) -> str:
    uniform = [_same_n(table, i) for i in range(len(table.columns))]
    body = []
    for group, of_group in groupby(table.lines, key=lambda line: line.group):
        body += [rf"\multicolumn{{{len(table.columns) + 1}}}{{l}}{{\textbf{{{escape(group)}}}}} \\"] if group else []
        for block, lines in groupby(of_group, key=lambda line: line.block):
            body += [rf"\quad\textit{{{escape(block)}}} {'& ' * len(table.columns)}\\"] if block else []
            body += [_line(line, uniform) for line in lines]
        body.append(r"\addlinespace")
    if body and body[-1] == r"\addlinespace":
        body.pop()
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{escape(table.title)}.{_legend(table)}}}",
            rf"\label{{tab:{re.sub(r'[^a-z0-9]+', '-', table.name.lower())}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            *_heads(table.columns, uniform),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            _comments(table.notes),
            r"\end{table}",
        ]
    )


def _heads(columns: Sequence[Column], uniform: Sequence[int | None]) -> list[str]:
    groups = [(group, len(list(of))) for group, of in groupby(columns, key=lambda column: column.group)]
    lines = []
    if any(group for group, _ in groups):
        lines.append("".join(rf"& \multicolumn{{{width}}}{{c}}{{{escape(group)}}} " for group, width in groups) + r"\\")
        rules, at = [], 2
        for group, width in groups:
            rules += [rf"\cmidrule(lr){{{at}-{at + width - 1}}}"] if group else []
            at += width
        lines.append("".join(rules))
    names = [
        escape(column.name) + (rf" {{\scriptsize n={n}}}" if n else "")
        for column, n in zip(columns, uniform, strict=True)
    ]
    return [*lines, "".join(f"& {name} " for name in names) + r"\\"]


def _line(line: Line, uniform: Sequence[int | None]) -> str:
    indent = (
        r"\quad\quad " if line.block else "{}"
    )  # else LaTeX reads a name in brackets as an option of the line break before it
    cells = [_cell(cell, n) for cell, n in zip(line.cells, uniform, strict=True)]
    return f"{indent}{escape(line.label)} " + "".join(f"& {cell} " for cell in cells) + r"\\"


def _cell(cell: Cell, n: int | None) -> str:
    if cell.value is None or cell.low is None or cell.high is None:
        text = escape(cell.text).replace(PLUS_MINUS, r" $\pm$ ")
    else:
        small = rf"[{cell.low:.1f}, {cell.high:.1f}]" + (f" n={cell.n}" if n is None and cell.n else "")
        text = rf"{cell.value:.1f} {{\scriptsize {small}}}"
    paper = f" ({cell.paper.value:g}{'$^{*}$' * bool(cell.paper.doubt)})" if cell.paper else ""
    return text + paper


def _same_n(table: Table, column: int) -> int | None:
    """The n of all rates of a column; None if they differ or the column has no rate."""
    found = {line.cells[column].n for line in table.lines if line.cells[column].low is not None}
    return next(iter(found)) if len(found) == 1 else None


def _legend(table: Table) -> str:
    cells = [cell for line in table.lines for cell in line.cells]
    said = [" In brackets 95\\% intervals."] if any(cell.low is not None for cell in cells) else []
    said += [" In parentheses the paper's numbers."] if any(cell.paper for cell in cells) else []
    withheld = [cell for cell in cells if cell.withheld]
    bounds = (
        "; the range is the rate if all of these are bad, and if all are good"
        if any(cell.bounded for cell in withheld)
        else ""
    )
    said += [rf" Withheld: more than {100 * MAX_INVALID:.0f}\% have no verdict{bounds}."] if withheld else []
    said += [r" $\pm$ lmms\_eval's standard error."] if any(PLUS_MINUS in cell.text for cell in cells) else []
    said += [" $^{*}$ the printed number is wrong, or may be."] if any(c.paper and c.paper.doubt for c in cells) else []
    return "".join(said)


def _comments(lines: Sequence[str]) -> str:
    return "\n".join("% " + "".join(c for c in " ".join(line.split()) if c.isprintable()) for line in lines)


def escape(text: str) -> str:
    """Escape LaTeX commands and remove invisible characters; non-Latin scripts need XeLaTeX."""
    return "".join(SPECIAL.get(c, c) for c in " ".join(text.split()) if c.isprintable())
