"""Print the funnel of a construction."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_funnel(found: dict[str, Any]) -> None:
    """Print one line per step: entered, left, and why items did not leave."""
    table = Table(title="Funnel of the construction", title_justify="left")
    table.add_column("step", no_wrap=True)
    for column in ("entered", "left"):
        table.add_column(column, justify="right")
    table.add_column("not kept, by reason")
    table.add_column("tried")
    for step in found["steps"]:
        reasons = [
            f"{status}: {', '.join(f'{reason} {n}' for reason, n in of.items())}"
            for status, of in step["reasons"].items()
        ]
        tried = ", ".join(f"{name} {n}" for name, n in step["counts"].items())
        table.add_row(
            step["step"], f"{step['entered']:,}", f"{step['left']:,}", "; ".join(reasons) or "-", tried or "-"
        )
    Console().print(table)
