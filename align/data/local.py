"""Rows from any jsonl, json, csv or parquet file: one of this machine, in a zip archive, or of the hub.

Columns: prompt; image? or images? (paths, relative to `image_root` or to the file's folder; in parquet also images as `datasets`
writes them); response?, chosen?, rejected?, harmful_response?; role?, harm_in?, id?, caption?, twin?, category?. Other columns are
kept beside the row. An answer that is given under one name only (response or chosen; of a harmful row harmful_response or rejected)
is read as both.
"""

from __future__ import annotations

from collections.abc import Sequence

from align.data.answers import paired
from align.data.files.folder import DataFolder, Where
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


def read_file(what: str, where: Where, role: str | None, answered: bool = True) -> Read:
    """Rows of a file; `role` is what they are where the file does not say it. Raises UserError that names file, row and column.

    Of rows to train on (`answered`) a blank prompt or answer stays blank, to be counted with all other rows that cannot be used
    (align/training/row_checks.py); a benchmark's blank answer is none.
    """
    folder = DataFolder.open(what, where)
    rows, seen, unread = [], set(), UnreadImages(COLUMNS)
    for number, record in enumerate(folder.records(*folder.tables()), start=1):
        unread.see(record)
        row = _row(record, f"{record.file.stem}-{number}", folder, role, answered)
        if row.id in seen:
            raise UserError(f"{record.where}: id {brief(row.id)} stands twice; ids must be unique")
        seen.add(row.id)
        rows.append(row)
    return Read(rows, _blank(rows), unread.told)


def _blank(rows: Sequence[Row]) -> list[str]:
    """A line for each column in which texts are blank."""
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
            f"{where}: no column `role` says what it is, {' or '.join(ROLES)}; add it, or set {option('role=harmful')} or "
            f"{option('role=benign')} for the whole file"
        )
    if role not in ROLES:
        raise UserError(f"{where}: role is {brief(role)}, expected {' or '.join(ROLES)}")
    if harm_in is not None and harm_in not in HARM_IN:
        raise UserError(f"{where}: harm_in is {brief(harm_in)}, expected one of {', '.join(HARM_IN)}")
    images = folder.cells(record, "images")
    if images and record.get("image") not in (None, ""):
        raise UserError(f"{where}: both `image` and `images` hold images; one of them must go")
    images = images or folder.cells(record, "image")
    row = Row(
        id=record.name("id") if record.get("id") not in (None, "") else default_id,
        images=images,
        role=role,
        # A harmful row that does not say where its harm lies: without an image it can only be the text; with one it may be
        # the image alone, and a view that hides the image should not pass in silence.
        harm_in=harm_in or ("none" if role == "benign" else "image" if images else "text"),
        source=folder.name,
        cluster=images[0].name if images else None,
        columns={key: value for key, value in record.items() if key not in COLUMNS},
        **texts,  # type: ignore[arg-type]
    )
    return paired(row)
