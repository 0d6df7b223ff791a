"""Options in error messages as they are typed where the error is met.

What `align data` takes as `path=` is `data.harmful.path=` in a run, `settings.vlsbench.path=` in an evaluation of several benchmarks, and
`evaluate.settings.vlsbench.path=` in the evaluation of a run. Readers are the same in all of them, and do not know which it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where options are typed."""

    section: str = ""
    """`data.harmful`, `settings.vlsbench`; empty for the command's own options."""
    view: str | None = None
    """The option that chooses a view for these rows; None where there is none."""


COMMAND = Place()
_PLACE: ContextVar[Place] = ContextVar("place", default=COMMAND)


@contextlib.contextmanager
def options_of(place: Place) -> Iterator[None]:
    """Meanwhile errors name options as they are typed there."""
    before = _PLACE.set(place)
    try:
        yield
    finally:
        _PLACE.reset(before)


def option(text: str) -> str:
    """`path=<folder>` -> `data.harmful.path=<folder>`."""
    section = _PLACE.get().section
    return f"{section}.{text}" if section else text


def text_view() -> str | None:
    """The option that shows these rows without their images; None where there is none."""
    view = _PLACE.get().view
    return f"{view}=text" if view else None
