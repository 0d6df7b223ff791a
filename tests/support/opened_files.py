"""Which files a process opens: none of a folder that it must leave alone."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

_watched: list[str] = []
_opened: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watched and isinstance(arguments[0], (str, bytes)):
        name = arguments[0] if isinstance(arguments[0], str) else arguments[0].decode(errors="replace")
        if name.startswith(_watched[0]):
            _opened.append(name)


@cache
def _begin_watching() -> None:
    """For good, and every event of the process passes there from then on: not before somebody asks."""
    sys.addaudithook(_watch)


@contextlib.contextmanager
def nothing_opened(folder: Path) -> Iterator[None]:
    """No file of the folder is opened meanwhile."""
    _begin_watching()
    _opened.clear()
    _watched.append(str(folder))
    try:
        yield
    finally:
        _watched.clear()
    assert not _opened, f"a file outside was opened: {_opened[0]}"
