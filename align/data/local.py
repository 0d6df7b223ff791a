"""Rows from any jsonl, json, csv or parquet file: on this machine, in a zip archive, or on the Hub.

Columns: prompt; image? or images? (paths relative to `image_root` or to the file's folder; in parquet
also images as `datasets` writes them); response?, chosen?, rejected?, harmful_response?; role?,
harm_in?, id?, caption?, twin?, category?. Other columns are kept with the row. A text given under one
name only (response or chosen; in a harmful row harmful_response or rejected) is used for both.
"""

from __future__ import annotations

from collections.abc import Sequence

from align.data.answers import paired
from align.data.files.folder import DataFolder, DataLocation
from align.data.files.records import Record, brief, text_column
from align.data.files.unread import UnreadImages
from align.data.hints import option
from align.data.reading import Read
from align.errors import UserError
from align.rows import HARM_IN, ROLES, Row
from align.settings import Part

ANSWERS = ("response", "chosen", "rejected", "harmful_response")
TEXTS = ("prompt", *ANSWERS, "caption", "twin", "category", "role", "harm_in")
COLUMNS = frozenset((*TEXTS, "id", "image", "images"))


def read(part: Part) -> Read:
    """The source `local`: the rows of the file at `part.path`. Raises UserError."""
    return read_file("source=local", part, part.role)


def read_file(what: str, where: DataLocation, role: str | None, answered: bool = True) -> Read:
    """Rows of a file; `role` is the role of rows without one. Raises UserError that names file, row and column.

    In training rows (`answered`) a blank prompt or response stays blank, so that it is counted with all
    other unusable rows (align/training/row_checks.py). In a benchmark a blank response becomes None.
    """
    folder = DataFolder.open(what, where)
    rows, seen, unread = [], set(), UnreadImages(COLUMNS)
    for number, record in enumerate(folder.rows(), start=1):
        unread.see(record)
        row = _row(record, f"{record.file.stem}-{number}", folder, role, answered)
        if row.id in seen:
            raise UserError(f"{record.where}: id {brief(row.id)} occurs twice; make ids unique")
        seen.add(row.id)
        rows.append(row)
    return Read(rows, _blank(rows), unread.told)


def _blank(rows: Sequence[Row]) -> list[str]:
    """One line per column with blank texts."""
    found = {
        column: [row.id for row in rows if (text := getattr(row, column)) is not None and not text.strip()]
        for column in ("prompt", *ANSWERS)
    }
    return [
        f"{len(ids)} rows have an empty `{column}`, first {', '.join(ids[:5])}" for column, ids in found.items() if ids
    ]


def _row(record: Record, default_id: str, folder: DataFolder, default_role: str | None, answered: bool) -> Row:
    where = record.where
    texts = {column: text_column(record, column, where) for column in TEXTS}
    texts |= {column: text or None for column, text in texts.items() if column not in ("prompt", *ANSWERS)}
    if texts["prompt"] is None:
        raise UserError(f"{where}: no column `prompt`; found {', '.join(map(str, record)) or 'nothing'}")
    if not answered:
        if not texts["prompt"].strip():
            raise UserError(f"{where}: `prompt` is empty")
        texts |= {column: None for column in ANSWERS if not (texts[column] or "").strip()}
    role, harm_in = texts.pop("role") or default_role, texts.pop("harm_in")
    if role is None:
        raise UserError(
            f"{where}: no column `role`, expected {' or '.join(ROLES)}; add the column, or set "
            f"{option('role=harmful')} or {option('role=benign')} for the whole file"
        )
    if role not in ROLES:
        raise UserError(f"{where}: role is {brief(role)}, expected {' or '.join(ROLES)}")
    if harm_in is not None and harm_in not in HARM_IN:
        raise UserError(f"{where}: harm_in is {brief(harm_in)}, expected one of {', '.join(HARM_IN)}")
    images = folder.cells(record, "images")
    if images and record.get("image") not in (None, ""):
        raise UserError(f"{where}: both `image` and `images` have images; remove one of the two")
    images = images or folder.cells(record, "image")
    row = Row(
        id=record.name("id") if record.get("id") not in (None, "") else default_id,
        images=images,
        role=role,
        # A harmful row without harm_in: if it has no image, the harm is in the text. If it has one,
        # the harm may be in the image only, so a view that hides the image must not pass silently.
        harm_in=harm_in or ("none" if role == "benign" else "image" if images else "text"),
        source=folder.name,
        cluster=images[0].name if images else None,
        columns={key: value for key, value in record.items() if key not in COLUMNS},
        **texts,  # type: ignore[arg-type]
    )
    return paired(row)
