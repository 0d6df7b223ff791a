"""The error type of the project: a message that tells the user how to fix the cause."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class UserError(Exception):
    """An input of the user cannot be used; the message says what it is, what is expected and what to do.

    Commands print only the message, without a traceback, and exit with status 2.
    """


class BadRow(UserError):
    """One row cannot be used; other rows can. Rows with the same `kind` of fault are counted together."""

    def __init__(self, message: str, kind: str = "unusable"):
        super().__init__(message)
        self.kind = kind


class NoModelConfig(UserError):
    """The config.json of a model cannot be read, so nothing about it can be planned."""


def message_of(error: UserError) -> str:
    """The message without the traceback that torch adds in a data loader's worker."""
    return str(error).rpartition(f"{UserError.__module__}.{type(error).__qualname__}: ")[2].strip()


def nearest(name: str, names: Sequence[str]) -> str:
    """The end of an error message: the most similar name."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def not_permitted(error: PermissionError) -> str:
    """The message about a file or folder without permission, with what to do."""
    return f"{error.filename or error}: no permission; give another folder (output_dir=, XDG_CACHE_HOME), or change its permissions"
