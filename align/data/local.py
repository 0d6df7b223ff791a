"""Rows from your own table (align/data/files/tables.py): on this machine, in a zip archive, or on the Hub.

Fields: prompt; image? or images? (paths relative to `image_root` or to the file's folder, or the images
themselves); response?, chosen?, rejected?, harmful_response?; role?, harm_in?, id?, caption?, twin?,
category?. A field is read from the column of its name, or from the column that `columns.<field>=` names.
Other columns are kept with the row. A text given under one name only (response or chosen; in a harmful
row harmful_response or rejected) is used for both.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Protocol

from align.data.answers import paired
from align.data.columns import Columns
from align.data.files.folder import DataFolder, DataLocation
from align.data.files.records import Record, brief, text_column
from align.data.files.unread import UnreadImages
from align.data.hints import option
from align.data.proposal import as_options, proposed
from align.data.reading import Read
from align.errors import UserError
from align.rows import HARM_IN, ROLES, Row
from align.settings import Part

ANSWERS = ("response", "chosen", "rejected", "harmful_response")
TEXTS = ("prompt", *ANSWERS, "caption", "twin", "category", "role", "harm_in")
FIELDS = (*TEXTS, "id", "image", "images")


class OwnFile(DataLocation, Protocol):
    """Settings of your own file."""

    columns: dict[str, str]
    """{field: column of the file}"""


def read(part: Part) -> Read:
    """The source `local`: the rows of the file at `part.path`. Raises UserError."""
    return read_file("source=local", part, part.role)


def read_file(what: str, where: OwnFile, role: str | None, answered: bool = True) -> Read:
    """Rows of a file; `role` is the role of rows without one. Raises UserError that names file, row and column.

    In training rows (`answered`) a blank prompt or response stays blank, so that it is counted with all
    other unusable rows (align/training/row_checks.py). In a benchmark a blank response becomes None.
    """
    columns = Columns(what, FIELDS, where.columns)
    folder = DataFolder.open(what, where)
    rows, seen, unread = [], set(), UnreadImages(columns.read)
    for number, record in enumerate(folder.rows(), start=1):
        unread.see(record)
        columns.see(record)
        row = _row(record, f"{record.file.stem}-{number}", folder, columns, role, answered)
        if row.id in seen:
            raise UserError(f"{record.where}: id {brief(row.id)} occurs twice; make ids unique")
        seen.add(row.id)
        rows.append(row)
    columns.refuse_absent()
    return Read(rows, _blank(rows), unread.told, next(iter(unread.found), None))


def _blank(rows: Sequence[Row]) -> list[str]:
    """One line per column with blank texts."""
    found = {
        column: [row.id for row in rows if (text := getattr(row, column)) is not None and not text.strip()]
        for column in ("prompt", *ANSWERS)
    }
    return [
        f"{len(ids)} rows have an empty `{column}`, first {', '.join(ids[:5])}" for column, ids in found.items() if ids
    ]


def _row(
    record: Record, default_id: str, folder: DataFolder, columns: Columns, default_role: str | None, answered: bool
) -> Row:
    where = record.where
    texts = {field: text_column(record, columns[field], where) for field in TEXTS}
    texts |= {field: text or None for field, text in texts.items() if field not in ("prompt", *ANSWERS)}
    if texts["prompt"] is None:
        raise _no_prompt(record, columns)
    if not answered:
        if not texts["prompt"].strip():
            raise UserError(f"{where}: `{columns['prompt']}` is empty")
        texts |= {field: None for field in ANSWERS if not (texts[field] or "").strip()}
    role, harm_in = texts.pop("role") or default_role, texts.pop("harm_in")
    if role is None:
        raise UserError(
            f"{where}: no column `{columns['role']}`, expected {' or '.join(ROLES)}; add the column, or set "
            f"{option('role=harmful')} or {option('role=benign')} for the whole file"
        )
    if role not in ROLES:
        raise UserError(f"{where}: {columns['role']} is {brief(role)}, expected {' or '.join(ROLES)}")
    if harm_in is not None and harm_in not in HARM_IN:
        raise UserError(f"{where}: {columns['harm_in']} is {brief(harm_in)}, expected one of {', '.join(HARM_IN)}")
    images = folder.cells(record, columns["images"])
    if images and record.get(columns["image"]) not in (None, ""):
        raise UserError(
            f"{where}: both `{columns['image']}` and `{columns['images']}` have images; remove one of the two"
        )
    images = images or folder.cells(record, columns["image"])
    row = Row(
        id=record.name(columns["id"]) if record.get(columns["id"]) not in (None, "") else default_id,
        images=images,
        role=role,
        # A harmful row without harm_in: if it has no image, the harm is in the text. If it has one,
        # the harm may be in the image only, so a view that hides the image must not pass silently.
        harm_in=harm_in or ("none" if role == "benign" else "image" if images else "text"),
        source=folder.name,
        cluster=images[0].name if images else None,
        columns={column: value for column, value in record.items() if column not in columns.read},
        **texts,  # type: ignore[arg-type]
    )
    return paired(row)


def _no_prompt(record: Record, columns: Columns) -> UserError:
    column, found = columns["prompt"], tuple(record)
    if column in record:
        return UserError(f"{record.where}: `{column}` is null, expected text")
    if "prompt" in columns.given:
        return columns.absent("prompt", column, record.where, found)
    options = as_options(proposed([record], columns.names))
    proposal = f"Proposed: {shlex.join(options)}" if options else f"Name it with {option('columns.prompt=<column>')}"
    return UserError(f"{record.where}: no column `prompt`; found {', '.join(found) or 'nothing'}. {proposal}")
