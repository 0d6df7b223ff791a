"""Options in error messages, as the user types them in the current command.

The option `path=` of `align data` is `data.harmful.path=` in a run, `settings.vlsbench.path=` in an
evaluation of several benchmarks, and `evaluate.settings.vlsbench.path=` in the evaluation of a run.
The readers are the same in all commands, and do not know which command runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """The section in which options are typed."""

    section: str = ""
    """`data.harmful`, `settings.vlsbench`; empty for the command's own options."""
    view: str | None = None
    """The option that selects a view for these rows; None if no option does."""


COMMAND = Place()
_PLACE: ContextVar[Place] = ContextVar("place", default=COMMAND)


@contextlib.contextmanager
def options_of(place: Place) -> Iterator[None]:
    """Within this context, error messages name options as they are typed in `place`."""
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
    """The option that shows these rows without their images; None if no option does."""
    view = _PLACE.get().view
    return f"{view}=text" if view else None
