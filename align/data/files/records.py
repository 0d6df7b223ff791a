"""A record of a table: its columns, and its file and row for error messages."""

from __future__ import annotations

import csv
import reprlib
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

from align.errors import UserError

File = Path | zipfile.Path
"""A file in a folder or in a zip archive."""

UNREADABLE = (
    ValueError,  # includes errors of JSON, UTF-8 and Arrow
    csv.Error,
    OSError,
    EOFError,
    RecursionError,  # too deeply nested brackets
    NotImplementedError,  # formats that Arrow or zipfile does not support
    RuntimeError,  # an archive with a password
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
)


class Record(dict[str, Any]):
    """One record of a file."""

    def __init__(self, values: dict[str, Any], file: File, where: str, key: str):
        super().__init__(values)
        self.file = file
        self.where = where
        """The file and the row, for error messages."""
        self.key = key
        """Its key in a file that is an object of records; otherwise its row number, from 1."""

    def text(self, column: str, empty: bool = False) -> str:
        """A column that must contain text; blank only if `empty`. Raises UserError that names row and column."""
        text = self.optional(column) or ""
        if not text.strip() and not (empty and column in self):
            found = "is empty" if column in self else f"is absent; found the columns {', '.join(self) or '(none)'}"
            raise UserError(f"{self.where}: `{column}` {found}")
        return text

    def optional(self, column: str) -> str | None:
        """A column that may contain text; None if it is absent, null or empty. Raises UserError for anything else."""
        return text_column(self, column, self.where) or None

    def answer(self, column: str, needed: bool = True) -> str | None:
        """A column of responses; if not `needed`, None for an absent or blank one. Raises UserError."""
        if needed:
            return self.text(column)
        found = self.optional(column)
        return found if found and found.strip() else None

    def name(self, column: str) -> str:
        """A column that contains an id: text or a whole number. Raises UserError."""
        value = self.get(column)
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else self.text(column)

    def flag(self, column: str) -> bool:
        """A column that must be true or false. Raises UserError."""
        if not isinstance(self.get(column), bool):
            raise UserError(f"{self.where}: `{column}` is {shown(self.get(column))}, expected true or false")
        return bool(self[column])

    def records(self, column: str) -> list[Record]:
        """A column that must be a list of objects. Raises UserError."""
        value = self.get(column)
        if not isinstance(value, list):
            raise UserError(f"{self.where}: `{column}` is {shown(value)}, expected a list")
        return [
            record_of(item, self.file, f"{self.where}, `{column}` {i}", str(i)) for i, item in enumerate(value, start=1)
        ]


def text_column(record: dict[str, Any], column: str, where: str) -> str | None:
    """A column with text; None if it is absent or null. Raises UserError that names row and column."""
    value = record.get(column)
    return None if value is None else as_text(value, column, where)


def as_text(value: Any, column: str, where: str) -> str:
    """A column's value, which must be text in valid Unicode. Raises UserError that names row and column."""
    if not isinstance(value, str):
        raise UserError(f"{where}: `{column}` is {shown(value)}, expected text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: `{column}` is not valid Unicode: {error}") from error
    return value


def shown(value: Any) -> str:
    """A value of the wrong type, for error messages."""
    return f"{brief(value)} ({type(value).__name__})"


def brief(value: Any) -> str:
    """A value that may be large or deeply nested, in about 80 characters."""
    text = _BRIEF.repr(value)
    return text if len(text) <= 80 else text[:80] + "..."


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 90


def record_of(value: Any, file: File, where: str, key: str) -> Record:
    """A value of a table as a record. Raises UserError if it is not an object with columns."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object with columns, found {type(value).__name__}")
    return Record({str(column): content for column, content in value.items()}, file, where, key)
