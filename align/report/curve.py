"""Print a run's curve on the terminal: the rate of each benchmark by training step."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from align.report.names import SHORT, is_control, measured, percent, sets_of
from align.report.tables.cells import valid_n


def print_curve(points: dict[int, dict[str, dict[str, Any]]]) -> None:
    """Print a line for each step and a column for each benchmark, without controls.

    `points` is {step: {benchmark: result}}.
    """
    sets = [name for name in sets_of([{"results": results} for results in points.values()]) if not is_control(name)]
    if not sets:
        return
    table = Table(title="Curve: rates by step, of n items with a verdict", title_justify="left")
    table.add_column("step", justify="right")
    of_all = {name: {valid_n(results[name]) for results in points.values()} for name in sets}
    final = points[max(points)]
    for name in sets:
        n = f", {valid_n(final[name])}" if len(of_all[name]) == 1 else ""
        table.add_column(f"{name}\n{measured(final[name], SHORT)} %{n}", justify="right", overflow="fold")
    for step, results in points.items():
        table.add_row(str(step), *(_cell(results[name], len(of_all[name]) > 1) for name in sets))
    Console().print(table)


def _cell(result: dict[str, Any], with_n: bool) -> str:
    rate = "withheld" if result["rate"] is None else percent(result["rate"])
    return f"{rate}\n{valid_n(result)}" if with_n else rate
