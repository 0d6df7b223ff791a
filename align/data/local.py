"""Rows from any local jsonl, parquet or csv file.

Columns: prompt; image? or images? (paths, relative to `image_root` or to the file's folder); response?, chosen?, rejected?,
harmful_response?; role?, harm_in?, id?, caption?, twin?, category?. Other columns are kept beside the row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    if path is None:
        raise UserError(f"{what}: give path=<file>")
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{what}: path={path} is not a file")
    root = Path(image_root) if image_root else file.parent
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


def records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, record) of a jsonl, json, csv or parquet file. Raises UserError that names the row."""
    if file.suffix == ".jsonl":
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _json(line, f"{file}, row {number}")
    elif file.suffix == ".json":
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, list):
            raise UserError(f"{file}: expected a list of records, found {type(values).__name__}")
        yield from enumerate(values, start=1)
    elif file.suffix == ".csv":
        with file.open(encoding="utf-8", newline="") as lines:
            yield from enumerate(csv.DictReader(lines), start=1)
    elif file.suffix == ".parquet":
        import pyarrow.parquet

        for batch_start, batch in _numbered(pyarrow.parquet.ParquetFile(file).iter_batches(1024)):
            for offset, record in enumerate(batch.to_pylist(), start=1):
                yield batch_start + offset, record
    else:
        raise UserError(
            f"{file}: cannot tell its format from the ending {file.suffix!r}; expected .jsonl, .json, .csv or .parquet"
        )


def _numbered(batches: Any) -> Iterator[tuple[int, Any]]:
    start = 0
    for batch in batches:
        yield start, batch
        start += batch.num_rows


def _json(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected an object with columns, found {type(record).__name__}")
    return record


def _row(record: dict[str, Any], where: str, default_id: str, root: Path, default_role: str | None) -> Row:
    texts = {column: _text(record, column, where) for column in TEXTS}
    if texts["prompt"] is None:
        raise UserError(f"{where}: no column `prompt`; found {', '.join(map(str, record)) or 'nothing'}")
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
    return Row(
        id=str(record["id"]) if record.get("id") not in (None, "") else default_id,
        images=images,
        role=role,
        # A harmful row that does not say where its harm lies: without an image it can only be the text.
        harm_in=harm_in or ("none" if role == "benign" else "both" if images else "text"),
        source=root.name,
        cluster=images[0].path if images else None,
        columns={key: value for key, value in record.items() if key not in (*TEXTS, "id", "image", "images")},
        **texts,  # type: ignore[arg-type]
    )


def _text(record: dict[str, Any], column: str, where: str) -> str | None:
    value = record.get(column)
    if value is None or (value == "" and column not in ("prompt", *ANSWERS)):
        return None
    if not isinstance(value, str):
        raise UserError(f"{where}: `{column}` is {value!r} ({type(value).__name__}), expected text")
    return value


def _images(record: dict[str, Any], where: str, root: Path) -> Iterator[ImageRef]:
    value = record.get("images") if record.get("images") is not None else record.get("image")
    for item in value if isinstance(value, list) else [] if value in (None, "") else [value]:
        if isinstance(item, dict) and item.get("bytes"):  # parquet written by `datasets`
            yield ImageRef(bytes=item["bytes"])
        elif name := (item.get("path") if isinstance(item, dict) else item):
            if not isinstance(name, str):
                raise UserError(f"{where}: image is {name!r} ({type(name).__name__}), expected a path")
            yield ImageRef(path=str(resolve(root, name, where)))
