"""Comparisons of arms as a table: differences, and interactions of arm and leak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.report.names import display_name, method_name, percent, variant_of
from align.report.tables.table import Cell, Column, Line, Table

LEAD = ("model", "method", "difference", "benchmark")
COLUMNS = [Column("points", "", "points [95% interval]"), *(Column(name, "", name) for name in ("n", "seeds", "p"))]
NOTE = (
    "Differences are between the same items under the same seeds; `n` counts them (for an interaction: on both "
    "benchmarks). 95% intervals over images and seeds. A difference ranges from -100 to 100 points. An interaction is "
    "the difference on the leak-free benchmark minus the difference on the leaky one; it ranges from -200 to 200. `p` "
    "is two-sided, and not corrected for the number of differences"
)


def difference_tables(comparisons: Sequence[dict[str, Any]]) -> list[Table]:
    """A table of comparisons for each track."""
    tables = []
    for track in dict.fromkeys(c["track"] for c in comparisons):
        of_track = [c for c in comparisons if c["track"] == track]
        # Arms of the controlled track have the same name under every method.
        by_method = track == "controlled" and len({c["method"] for c in of_track}) > 1
        lines = [_line(c, by_method) for c in of_track]
        title = f"{track.capitalize()} track: differences between arms, in points"
        tables.append(Table(f"{track}-differences", title, LEAD, COLUMNS, lines, [NOTE]))
    return tables


def _line(c: dict[str, Any], by_method: bool) -> Line:
    between = f"{display_name(c['a'])} minus {display_name(c['b'])}"
    where = c["sets"][0] if c["kind"] == "difference" else f"interaction: {c['sets'][0]} minus {c['sets'][1]}"
    model = ", ".join([c["model"], *variant_of(c)])
    points = Cell(
        f"{100 * c['difference']:+.1f} [{percent(c['low'])}, {percent(c['high'])}]",
        value=100 * c["difference"],
        low=100 * c["low"],
        high=100 * c["high"],
        n=c["n"],
    )
    seeds = ", ".join(map(str, c["seeds"]))
    cells = [points, Cell(str(c["n"])), Cell(seeds), Cell(f"{c['p_value']:.2g}")]
    label = ", ".join([*([method_name(c["method"])] if by_method else []), between, where])
    return Line((model, method_name(c["method"]), between, where), label, cells, model)
