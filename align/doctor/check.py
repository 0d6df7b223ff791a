"""What a check says, and how checks are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = 1
OK, WARNING, MISSING, BROKEN = "ok", "warning", "missing", "broken"
"""It serves; it serves with a reservation; it is needed and not there; it is there and cannot be used."""
COLOURS = {OK: "green", WARNING: "yellow", MISSING: "red", BROKEN: "red"}


@dataclass
class Check:
    """One thing that was looked at."""

    name: str
    status: str
    found: str
    todo: str = ""
    """What to do about it, or what it would be good for."""


def can_run(checks: Sequence[Check]) -> bool:
    """Whether nothing is missing or broken."""
    return all(check.status in (OK, WARNING) for check in checks)


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The object that `format=json` prints."""
    return {"schema": SCHEMA, "checks": [asdict(check) for check in checks], "can_run": can_run(checks)}


def show(checks: Sequence[Check], about: str) -> None:
    """A line for each check, another for what to do, and the conclusion; `about` says what can run or not."""
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
