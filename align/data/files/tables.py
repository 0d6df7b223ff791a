"""Tables, read record by record: jsonl, json, csv, tsv (each also compressed with gzip) and parquet."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from align.data.files.formats import COMPRESSED, PACKED, ending_of, ending_of_name, unpacking
from align.data.files.records import UNREADABLE, File, Record, record_of, shown
from align.errors import UserError

LONGEST_FIELD = (1 << 31) - 1
"""Characters of a field of csv or tsv, which may be an image in base64; csv's own limit is 131,072."""
GZIP = b"\x1f\x8b"
SPACE = re.compile(r"[ \t\r\n]*")

Keyed = Iterator[tuple[str | None, Any]]
"""(a record's key or None, the record)"""


def records(file: File, part: str | None = None) -> Iterator[Record]:
    """The records of a table; in an object of lists, the list `part`. Raises UserError that names file and row.

    A json file is a list of records, an object of records, an object with one list of records, or records one
    after the other.
    """
    ending = ending_of(file) if isinstance(file, Path) else ending_of_name(file.name)
    reader = READERS.get(ending.removesuffix(COMPRESSED))
    if ending in PACKED:
        raise UserError(f"{file}: {unpacking(file.name)}")
    if reader is None:
        raise UserError(f"{file}: unknown format with the ending {ending!r}; expected {', '.join(READERS)}")
    number = 0
    try:
        found = reader(file) if part is None else _part(file, part)
        for number, (key, value) in enumerate(found, start=1):
            yield record_of(value, file, f"{file}, row {number if key is None else repr(key)}", key or str(number))
    except UNREADABLE as error:
        raise UserError(f"{file}: cannot be read after row {number}: {error}") from error


def _jsonl(file: File) -> Keyed:
    with _text(file) as lines:
        for line in lines:
            if line.strip():
                yield None, json.loads(line, object_pairs_hook=_once)


def _json(file: File) -> Keyed:
    values = _values(_whole(file))
    first = next(values)
    for second in values:  # JSON lines
        yield None, first
        yield None, second
        yield from ((None, value) for value in values)
        return
    if isinstance(first, dict) and all(isinstance(value, dict) for value in first.values()):
        yield from first.items()
    else:
        yield from ((None, value) for value in (first if isinstance(first, list) else _only_list(first)))


def _values(text: str) -> Iterator[Any]:
    """The values of a JSON text: one, or several objects, one after the other. Raises ValueError."""
    decoder, at = json.JSONDecoder(object_pairs_hook=_once), _after_space(text, 0)
    value, at = decoder.raw_decode(text, at)
    yield value
    while (at := _after_space(text, at)) < len(text):
        if not isinstance(value, dict):
            raise json.JSONDecodeError("Extra data", text, at)
        value, at = decoder.raw_decode(text, at)
        yield value


def _after_space(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return found.end() if found else at


def _only_list(values: Any) -> list[Any]:
    """The records of an object with one list of records, e.g. {"version": 1, "data": [...]}. Raises ValueError."""
    if not isinstance(values, dict):
        raise ValueError(f"expected a list of records or an object of records, found {shown(values)}")
    lists = {key: value for key, value in values.items() if isinstance(value, list) and _of_objects(value)}
    if len(lists) == 1:
        return next(iter(lists.values()))
    found = f"an object with the keys {', '.join(map(repr, values)) or '(none)'}"
    if lists:
        raise ValueError(
            f"expected one list of records, found {found}, of which {', '.join(map(repr, lists))} are lists of "
            "records; write each list to a file of its own"
        )
    raise ValueError(
        f"expected a list of records or an object of records, found {found}; write a list of records, or one record "
        "per line in a file that ends with .jsonl"
    )


def _of_objects(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


def _part(file: File, part: str) -> Keyed:
    values = json.loads(_whole(file), object_pairs_hook=_once)
    if not isinstance(values, dict) or not isinstance(values.get(part), list):
        found = ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"expected an object with a list {part!r}, found {found or 'an empty object'}")
    yield from ((None, value) for value in values[part])


def _whole(file: File) -> str:
    with _text(file) as text:
        return text.read()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without repeated keys, of which json itself would silently keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {shown(twice)} occurs twice in one object; remove one of the two")
    return found


def _csv(file: File, delimiter: str = ",") -> Keyed:
    csv.field_size_limit(LONGEST_FIELD)
    with _text(file, newline="") as lines:
        rows = csv.reader(lines, strict=True, delimiter=delimiter)
        columns = next(rows, [])
        if twice := [column for column, count in Counter(columns).items() if count > 1]:
            raise ValueError(f"the column {shown(twice[0])} occurs twice; remove one of the two")
        for fields in rows:
            if fields and len(fields) != len(columns):
                raise ValueError(f"the next row has {len(fields)} fields, expected {len(columns)} as in the header")
            if fields:  # an empty field is csv's only way to write an absent value
                yield None, {column: value or None for column, value in zip(columns, fields, strict=True)}


def _tsv(file: File) -> Keyed:
    return _csv(file, "\t")


def _parquet(file: File) -> Keyed:
    from align.data.files.parquet import records

    if not isinstance(file, Path):
        raise ValueError("parquet inside a zip archive cannot be read; unzip the archive")
    yield from ((None, record) for record in records(file))


READERS = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet, ".tsv": _tsv, ".ndjson": _jsonl}


def _text(file: File, newline: str | None = None) -> IO[str]:
    """A file opened as text. Compressed content is read by its first bytes: names in the Hub's cache have no ending."""
    opened: Any = file.open("rb")
    begins = opened.read(len(GZIP))
    opened.seek(0)
    # utf-8-sig: spreadsheet programs write a byte order mark before the first column's name.
    content = gzip.GzipFile(fileobj=opened) if begins == GZIP else opened
    return io.TextIOWrapper(content, encoding="utf-8-sig", newline=newline)
