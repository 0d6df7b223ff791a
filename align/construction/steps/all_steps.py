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


GIVEN = {
    "categories": {"category", "subcategory"},
    "images": {"category", "image"},
    "pairs": {"category", "subcategory", "description", "query_leak", "image"},
}
"""{source: fields that its items may have}"""


def check_order(steps: Sequence[Step], source: str) -> None:
    """Raise UserError for a step whose fields no earlier step makes, before anything is called."""
    there = set(GIVEN.get(source, ()))
    for step in steps:
        if lacking := [name for name in step.needs if name not in there]:
            makers = [name for name, one in STEPS.items() if lacking[0] in one.gives]
            raise UserError(
                f"steps={','.join(one.name for one in steps)}: step {step.name} needs {lacking[0]}, which neither "
                f"source={source} nor an earlier step gives; add {' or '.join(makers) or 'another source'}, or leave "
                f"{step.name} out"
            )
        there |= set(step.gives)


def steps_of(names: Sequence[str]) -> list[Step]:
    """The steps of `steps=`. Raises UserError for an unknown or repeated one, and for another order."""
    for name in names:
        if name not in STEPS:
            raise UserError(
                f"steps={','.join(names)}: there is no step {name}{nearest(name, list(STEPS))}; steps: "
                f"{', '.join(STEPS)}"
            )
    if len(set(names)) < len(names):
        raise UserError(f"steps={','.join(names)}: a step is named twice; remove one")
    ordered = [name for name in STEPS if name in names]
    if ordered != list(names):
        raise UserError(f"steps={','.join(names)}: expected the order {','.join(ordered)}")
    return [STEPS[name] for name in names]
