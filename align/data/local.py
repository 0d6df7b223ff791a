"""Rows from any local jsonl, parquet or csv file.

Columns: prompt; image? or images? (paths, relative to `image_root` or to the file's folder); response?, chosen?, rejected?,
harmful_response?; role?, harm_in?, id?, caption?, twin?, category?. Other columns are kept beside the row. An answer that is given under
one name only (response or chosen; of a harmful row harmful_response or rejected) is read as both.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.data.answers import paired
from align.data.images import resolve
from align.errors import UserError
from align.rows import HARM_IN, ROLES, ImageRef, Row
from align.settings import Part

ANSWERS = ("response", "chosen", "rejected", "harmful_response")
TEXTS = ("prompt", *ANSWERS, "caption", "twin", "category", "role", "harm_in")


def read(part: Part) -> list[Row]:
    """The source `local`: the rows of the file at `part.path`. Raises UserError."""
    return read_file(part.path, part.image_root, part.role, "source=local")


def read_file(path: str | None, image_root: str | None, role: str | None, what: str) -> list[Row]:
    """Rows of a file; `role` is what they are where the file does not say it. Raises UserError that names file, row and column."""
    file, root = existing(path, image_root, what)
    rows, seen = [], set()
    for number, record in records(file):
        row = _row(record, f"{file}, row {number}", f"{file.stem}-{number}", root, role)
        if row.id in seen:
            raise UserError(f"{file}, row {number}: id {row.id!r} stands twice; ids must be unique")
        seen.add(row.id)
        rows.append(row)
    if not rows:
        raise UserError(f"{file}: no rows; expected one record a line with at least a column `prompt`")
    return rows


def existing(path: str | None, image_root: str | None, what: str) -> tuple[Path, Path]:
    """(a local file, the folder of its images, by default beside it). Raises UserError where the file is not given or not there."""
    if path is None:
        raise UserError(f"{what}: give path=<file>")
    if not Path(path).is_file():
        raise UserError(f"{what}: path={path} is not a file")
    return Path(path), Path(image_root) if image_root else Path(path).parent


def records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, record) of a jsonl, json, csv or parquet file. Raises UserError that names the row."""
    if file.suffix not in READERS:
        raise UserError(
            f"{file}: cannot tell its format from the ending {file.suffix!r}; expected {', '.join(READERS)}"
        )
    number = 0
    try:
        for number, record in enumerate(READERS[file.suffix](file), start=1):
            if not isinstance(record, dict):
                raise UserError(f"{file}, row {number}: expected an object with columns, found {type(record).__name__}")
            yield number, record
    except (ValueError, csv.Error) as error:  # JSON, UTF-8 and Arrow errors are ValueErrors
        raise UserError(f"{file}: not readable behind row {number}: {error}") from error


def _jsonl(file: Path) -> Iterator[Any]:
    # utf-8-sig: spreadsheets write a mark before the first column's name.
    with file.open(encoding="utf-8-sig") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _json(file: Path) -> Iterator[Any]:
    values = json.loads(file.read_text(encoding="utf-8-sig"))
    if not isinstance(values, list):
        raise UserError(f"{file}: expected a list of records, found {type(values).__name__}")
    yield from values


def _csv(file: Path) -> Iterator[Any]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for record in csv.DictReader(lines):
            if None in record:
                raise UserError(f"{file}: a row has more fields than there are columns: {record[None]}")
            yield {
                key: value or None for key, value in record.items()
            }  # csv has no other way to say that nothing is there


def _parquet(file: Path) -> Iterator[Any]:
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(file).iter_batches(1024):
        yield from batch.to_pylist()


READERS = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}


def _row(record: dict[str, Any], where: str, default_id: str, root: Path, default_role: str | None) -> Row:
    texts = {column: text_column(record, column, where) for column in TEXTS}
    if texts["prompt"] is None:
        raise UserError(f"{where}: no column `prompt`; found {', '.join(map(str, record)) or 'nothing'}")
    if not texts["prompt"].strip():
        raise UserError(f"{where}: `prompt` is empty")
    for column in ANSWERS:
        if texts[column] is not None and not texts[column].strip():  # type: ignore[union-attr]
            raise UserError(f"{where}: `{column}` is empty; remove the row or give an answer")
    role, harm_in = texts.pop("role") or default_role, texts.pop("harm_in")
    if role not in ROLES:
        raise UserError(
            f"{where}: role is {role!r}, expected {' or '.join(ROLES)}; add a column `role` or set role= for the whole file"
        )
    if harm_in is not None and harm_in not in HARM_IN:
        raise UserError(f"{where}: harm_in is {harm_in!r}, expected one of {', '.join(HARM_IN)}")
    images = tuple(_images(record, where, root))
    row = Row(
        id=str(record["id"]) if record.get("id") not in (None, "") else default_id,
        images=images,
        role=role,
        # A harmful row that does not say where its harm lies: without an image it can only be the text; with one it may be
        # the image alone, and a view that hides the image should not pass in silence.
        harm_in=harm_in or ("none" if role == "benign" else "image" if images else "text"),
        source=root.name,
        cluster=images[0].path if images else None,
        columns={key: value for key, value in record.items() if key not in (*TEXTS, "id", "image", "images")},
        **texts,  # type: ignore[arg-type]
    )
    return paired(row)


def text_column(record: dict[str, Any], column: str, where: str) -> str | None:
    """A column that holds text, or None where nothing is there. Raises UserError that names row and column."""
    value = record.get(column)
    if value is None or (value == "" and column not in ("prompt", *ANSWERS)):
        return None
    if not isinstance(value, str):
        raise UserError(f"{where}: `{column}` is {value!r} ({type(value).__name__}), expected text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: `{column}` is not valid Unicode: {error}") from error
    return value


def _images(record: dict[str, Any], where: str, root: Path) -> Iterator[ImageRef]:
    value = record.get("images") or record.get("image")
    for item in value if isinstance(value, list) else [] if value in (None, "") else [value]:
        if isinstance(item, dict) and item.get("bytes"):  # parquet written by `datasets`
            yield ImageRef(bytes=item["bytes"])
        elif name := (item.get("path") if isinstance(item, dict) else item):
            if not isinstance(name, str):
                raise UserError(f"{where}: image is {name!r} ({type(name).__name__}), expected a path")
            yield ImageRef(path=str(resolve(root, name, where)))
