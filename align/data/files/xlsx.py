"""The first sheet of an .xlsx workbook as records; its first row has the names of the columns.

A workbook is a zip archive of XML files (ECMA-376). A cell has its text in itself, or the number of
a text in a table that all cells share.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from xml.etree import ElementTree

from align.data.files.records import UNREADABLE, File, Record
from align.errors import UserError

NAMESPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
SHEET, SHARED = "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml"


def xlsx_records(file: File) -> Iterator[Record]:
    """The records of the first sheet, without empty rows; every value is text or None. Raises UserError."""
    try:
        with file.open("rb") as opened, zipfile.ZipFile(io.BytesIO(opened.read())) as book:
            rows = list(_rows(book))
    except (*UNREADABLE, KeyError, IndexError, ElementTree.ParseError) as error:
        raise UserError(f"{file}: cannot be read as an .xlsx workbook: {error}") from error
    if not rows:
        raise UserError(f"{file}: no rows in its first sheet")
    (_, names), *rows = rows
    if twice := [name for name, count in Counter(names.values()).items() if count > 1]:
        raise UserError(f"{file}: the column {twice[0]!r} occurs twice; remove one of the two")
    for key, (number, cells) in enumerate(rows, start=1):
        values = {name: cells.get(place) for place, name in names.items()}
        yield Record(values, file, f"{file}, row {number}", str(key))


def _rows(book: zipfile.ZipFile) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row's number in the sheet and {column letters: text}, without empty cells and rows."""
    shared = []
    if SHARED in book.namelist():
        shared = [_text(item) for item in ElementTree.fromstring(book.read(SHARED)).iter(f"{NAMESPACE}si")]
    for row in ElementTree.fromstring(book.read(SHEET)).iter(f"{NAMESPACE}row"):
        cells = {
            cell.attrib["r"].rstrip("0123456789"): text
            for cell in row.iter(f"{NAMESPACE}c")
            if (text := _cell(cell, shared))
        }
        if cells:
            yield row.attrib["r"], cells


def _cell(cell: ElementTree.Element, shared: list[str]) -> str | None:
    if cell.get("t") == "inlineStr":
        return _text(cell)
    value = cell.findtext(f"{NAMESPACE}v")
    return shared[int(value)] if value and cell.get("t") == "s" else value


def _text(element: ElementTree.Element) -> str:
    """The text of an element, whose parts may have different fonts."""
    return "".join(part.text or "" for part in element.iter(f"{NAMESPACE}t"))
