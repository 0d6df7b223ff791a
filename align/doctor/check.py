"""Checks and how they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = 1
OK, WARNING, MISSING, BROKEN = "ok", "warning", "missing", "broken"
"""usable; usable with a limitation; needed but missing; present but unusable."""
COLOURS = {OK: "green", WARNING: "yellow", MISSING: "red", BROKEN: "red"}


@dataclass
class Check:
    """Result of one check."""

    name: str
    status: str
    found: str
    todo: str = ""
    """What to do, or what the missing part would be used for."""


def can_run(checks: Sequence[Check]) -> bool:
    """Whether nothing is missing or broken."""
    return all(check.status in (OK, WARNING) for check in checks)


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The JSON object of `format=json`."""
    return {"schema": SCHEMA, "checks": [asdict(check) for check in checks], "can_run": can_run(checks)}


def show(checks: Sequence[Check], about: str) -> None:
    """Print a line for each check, a line for what to do, and the conclusion about `about`."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(soft_wrap=True, highlight=False)
    width = max(len(check.name) for check in checks)
    for check in checks:
        status = f"[{COLOURS[check.status]}]{check.status:<8}[/]"
        console.print(f"{status} {escape(check.name):<{width}}  {escape(check.found)}")
        if check.todo:
            console.print(f"{'':<8} {'':<{width}}  [dim]->[/] {escape(check.todo)}")
    bad = [check.name for check in checks if check.status not in (OK, WARNING)]
    console.print(f"\n{about}: {'no' if bad else 'yes'}{escape(' (' + ', '.join(bad) + ')') if bad else ''}")
