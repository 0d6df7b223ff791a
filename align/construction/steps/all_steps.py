"""The steps by name, in the order of the paper."""

from __future__ import annotations

from collections.abc import Sequence

from align.construction.steps.detoxify import DETOXIFY
from align.construction.steps.paint import PAINT, TWIN
from align.construction.steps.pairs import ANSWERS, CAPTION, PAIR
from align.construction.steps.queries import ELEMENTS, QUERIES
from align.construction.steps.step import Step
from align.errors import UserError, nearest

STEPS = {step.name: step for step in (ELEMENTS, QUERIES, DETOXIFY, PAINT, PAIR, TWIN, CAPTION, ANSWERS)}


def steps_of(names: Sequence[str]) -> list[Step]:
    """The steps of `steps=`. Raises UserError for an unknown or repeated one, and for another order."""
    for name in names:
        if name not in STEPS:
            raise UserError(
                f"steps={','.join(names)}: there is no step {name}{nearest(name, list(STEPS))}; steps: {', '.join(STEPS)}"
            )
    if len(set(names)) < len(names):
        raise UserError(f"steps={','.join(names)}: a step is named twice; remove one")
    ordered = [name for name in STEPS if name in names]
    if ordered != list(names):
        raise UserError(f"steps={','.join(names)}: expected the order {','.join(ordered)}")
    return [STEPS[name] for name in names]
