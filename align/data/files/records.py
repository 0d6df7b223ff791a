"""Records of jsonl, json, csv and parquet files, each with its file and row for error messages."""

from __future__ import annotations

import csv
import io
import json
import reprlib
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from align.data.files.formats import ending_of
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
            _record(item, self.file, f"{self.where}, `{column}` {i}", str(i)) for i, item in enumerate(value, start=1)
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


def records(file: File, part: str | None = None) -> Iterator[Record]:
    """The records of a jsonl, json, csv or parquet file; in an object of lists, the list `part`.

    A json file is a list of records or an object of records. Raises UserError that names file and row.
    """
    ending = ending_of(file) if isinstance(file, Path) else Path(file.name).suffix
    reader = READERS.get(ending)
    if reader is None:
        raise UserError(f"{file}: unknown format with the ending {ending!r}; expected {', '.join(READERS)}")
    number = 0
    try:
        found = reader(file) if part is None else _part(file, part)
        for number, (key, value) in enumerate(found, start=1):
            yield _record(value, file, f"{file}, row {number if key is None else repr(key)}", key or str(number))
    except UNREADABLE as error:
        raise UserError(f"{file}: cannot be read after row {number}: {error}") from error


def _record(value: Any, file: File, where: str, key: str) -> Record:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object with columns, found {type(value).__name__}")
    return Record({str(column): content for column, content in value.items()}, file, where, key)


Keyed = Iterator[tuple[str | None, Any]]
"""(a record's key or None, the record)"""


def _jsonl(file: File) -> Keyed:
    with _text(file) as lines:
        for line in lines:
            if line.strip():
                yield None, json.loads(line, object_pairs_hook=_once)


def _json(file: File) -> Keyed:
    values = _whole(file)
    if isinstance(values, list):
        yield from ((None, value) for value in values)
    elif isinstance(values, dict) and all(isinstance(value, dict) for value in values.values()):
        yield from values.items()
    else:
        raise ValueError(f"expected a list of records or an object of records, found {shown(values)}")


def _part(file: File, part: str) -> Keyed:
    values = _whole(file)
    if not isinstance(values, dict) or not isinstance(values.get(part), list):
        found = ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"expected an object with a list {part!r}, found {found or 'an empty object'}")
    yield from ((None, value) for value in values[part])


def _whole(file: File) -> Any:
    with _text(file) as text:
        return json.load(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without repeated keys, of which json itself would silently keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {shown(twice)} occurs twice in one object; remove one of the two")
    return found


def _csv(file: File) -> Keyed:
    with _text(file, newline="") as lines:
        rows = csv.reader(lines, strict=True)
        columns = next(rows, [])
        if twice := [column for column, count in Counter(columns).items() if count > 1]:
            raise ValueError(f"the column {shown(twice[0])} occurs twice; remove one of the two")
        for fields in rows:
            if fields and len(fields) != len(columns):
                raise ValueError(f"the next row has {len(fields)} fields, expected {len(columns)} as in the header")
            if fields:  # an empty field is csv's only way to write an absent value
                yield None, {column: value or None for column, value in zip(columns, fields, strict=True)}


def _parquet(file: File) -> Keyed:
    from align.data.files.parquet import records

    if not isinstance(file, Path):
        raise ValueError("parquet inside a zip archive cannot be read; unzip the archive")
    yield from ((None, record) for record in records(file))


READERS = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}


def _text(file: File, newline: str | None = None) -> IO[str]:
    # utf-8-sig: spreadsheet programs write a byte order mark before the first column's name.
    return io.TextIOWrapper(file.open("rb"), encoding="utf-8-sig", newline=newline)
