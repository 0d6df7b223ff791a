"""The one error type of the project: a message for the person who can mend the cause."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class UserError(Exception):
    """Something the user gave cannot be used; the message names it, what was expected and what to do.

    Commands print the message alone, without a traceback, and exit with status 2.
    """


class BadRow(UserError):
    """One row cannot be used, and others can. Rows with the same `kind` of fault are counted together."""

    def __init__(self, message: str, kind: str = "unusable"):
        super().__init__(message)
        self.kind = kind


def message_of(error: UserError) -> str:
    """The message alone: torch puts the traceback of a data loader's worker in front of it."""
    return str(error).rpartition(f"{UserError.__module__}.{type(error).__qualname__}: ")[2].strip()


def nearest(name: str, names: Sequence[str]) -> str:
    """The end of an error message: which of the names may be meant."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def not_permitted(error: PermissionError) -> str:
    """What a user may do about a file or folder that the system does not let this process use."""
    return f"{error.filename or error}: no permission; give another folder (output_dir=, XDG_CACHE_HOME), or change its permissions"
