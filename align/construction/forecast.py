"""What a construction may cost at most, before anything is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from align.construction.painters.painter import Painter
from align.construction.roles.reply_log import LoggedRole
from align.construction.roles.role import DUTIES, Role
from align.construction.steps.step import Step
from align.settings import ConstructConfig


def forecast(
    steps: Sequence[Step], n: int, config: ConstructConfig, roles: Mapping[str, Role], painters: Mapping[str, Painter]
) -> Iterator[str]:
    """Lines: for each step the largest numbers of items and calls; for each endpoint its tokens and cost."""
    totals: dict[str, int] = {}
    for step in steps:
        calls = {name: n * _number(factor, config) for name, factor in (step.calls or {}).items()}
        shown = ", ".join(f"{name} {count:,}" for name, count in calls.items())
        yield f"{step.name}: at most {n:,} items ({step.what}); at most these calls: {shown}"
        for name, count in calls.items():
            totals[name] = totals.get(name, 0) + count
        n *= _number(step.makes, config)
    if config.certify and config.certificate.judge.name:
        yield (
            f"certificate: at most {4 * n:,} verdicts of each judge of {', '.join(config.certificate.judge.name)} "
            "(pair and text, of both twins); `align leakage dry_run=true` shows the cost for the result"
        )
    for name, count in totals.items():
        role = roles.get(name)
        if isinstance(role, LoggedRole):
            yield f"{name}: at most {count:,} calls; {role.forecast(count, int(DUTIES[name].sees_image))}"
        elif name in painters:
            yield f"{name}: at most {count:,} images"


def _number(factor: str, config: ConstructConfig) -> int:
    return int(factor) if factor.isdigit() else int(getattr(config, factor))
