"""Options in error messages as they are typed where the error is met.

What `align data` takes as `path=` is `data.harmful.path=` in a run, `settings.vlsbench.path=` in an evaluation, and
`evaluate.settings.vlsbench.path=` in the evaluation of a run. Readers are the same in all of them, and do not know which it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_PLACE: ContextVar[str] = ContextVar("place", default="")


@contextlib.contextmanager
def options_of(place: str) -> Iterator[None]:
    """Meanwhile options are those of a place: `data.harmful`, `settings.vlsbench`; or of the command itself ("")."""
    before = _PLACE.set(f"{place}." if place else "")
    try:
        yield
    finally:
        _PLACE.reset(before)


def option(text: str) -> str:
    """`path=<folder>` -> `data.harmful.path=<folder>`: what a user types where they are."""
    return f"{_PLACE.get()}{text}"
