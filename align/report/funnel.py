"""The funnel of a construction: read below a folder, and printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from align.errors import UserError
from align.files import read_json

FUNNEL, CERTIFICATE = "funnel.json", "certificate.json"


def read_funnels(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the funnels of constructions below some folders, with their certificates -> (funnels,
    notes on damaged files).
    """
    found, notes = [], []
    for file in sorted({file for folder in folders for file in folder.rglob(FUNNEL)}):
        try:
            counted = read_json(file)
            lines = [
                (step["step"], int(step["entered"]), int(step["left"]), not_kept(step)) for step in counted["steps"]
            ]
            certificate = file.with_name(CERTIFICATE)
            measured = read_json(certificate) if certificate.is_file() else None
            leak_free = None if measured is None else bool(measured["leak_free"])
            why_not = [] if measured is None else list(measured["why_not"])
            found.append({"name": file.parent.name, "steps": lines, "leak_free": leak_free, "why_not": why_not})
        except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
            notes.append(f"{file}: damaged: {error}")
    return found, notes


def not_kept(step: dict[str, Any]) -> str:
    """Why items did not leave a step, by status and reason; empty if all did."""
    return "; ".join(
        f"{status}: {', '.join(f'{reason} {n:,}' for reason, n in of.items())}"
        for status, of in step["reasons"].items()
    )


def print_funnel(found: dict[str, Any]) -> None:
    """Print one line per step: entered, left, and why items did not leave."""
    table = Table(title="Funnel of the construction", title_justify="left")
    table.add_column("step", no_wrap=True)
    for column in ("entered", "left"):
        table.add_column(column, justify="right")
    table.add_column("not kept, by reason")
    table.add_column("tried")
    for step in found["steps"]:
        tried = ", ".join(f"{name} {n}" for name, n in step["counts"].items())
        table.add_row(step["step"], f"{step['entered']:,}", f"{step['left']:,}", not_kept(step) or "-", tried or "-")
    Console().print(table)
