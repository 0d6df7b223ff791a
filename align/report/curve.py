"""A run's curve on the terminal: how each set's rate went with the steps of its training."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from align.report.names import SHORT, is_control, measured, percent, sets_of


def print_curve(points: dict[int, dict[str, dict[str, Any]]]) -> None:
    """A line for each step, a column for each set but the controls; `points` is {step: {set: result}}."""
    sets = [name for name in sets_of([{"results": results} for results in points.values()]) if not is_control(name)]
    if not sets:
        return
    table = Table(title="Curve: rates by step", title_justify="left")
    table.add_column("step", justify="right")
    final = points[max(points)]
    for name in sets:
        table.add_column(
            f"{name}\n{measured(final[name], SHORT)} %, n={final[name]['n']}", justify="right", overflow="fold"
        )
    for step, results in points.items():
        rates = [results[name]["rate"] for name in sets]
        table.add_row(str(step), *("withheld" if rate is None else percent(rate) for rate in rates))
    Console().print(table)
