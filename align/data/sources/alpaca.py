"""Alpaca format: {instruction, input, output}, benign text. Files: any json, jsonl or parquet."""

from __future__ import annotations

from align.data.files.folder import DataFolder
from align.data.files.unread import UnreadImages
from align.data.reading import Read, check_subset
from align.errors import UserError
from align.rows import Row
from align.settings import Part

HUB = "tatsu-lab/alpaca"


def read(part: Part) -> Read:
    """The source `alpaca`; the dataset has some rows without a response, which are dropped and
    counted. Raises UserError.
    """
    check_subset("source=alpaca", part.subset, ())
    folder = DataFolder.open("source=alpaca", part, HUB, ["data/*.parquet"])
    rows, empty, unread = [], 0, UnreadImages(("instruction", "input", "output"))
    for number, record in enumerate(folder.records("*.json", "*.jsonl", "*.parquet", "data/*.parquet"), start=1):
        unread.see(record)
        asked = [record.text("instruction"), *([given] if (given := record.optional("input")) else [])]
        answer = record.text("output", empty=True)
        if not answer.strip():
            empty += 1
            continue
        rows.append(Row(id=f"alpaca-{number}", prompt="\n".join(asked), response=answer, source="alpaca"))
    if not rows:
        raise UserError(f"source=alpaca: none of the {empty} rows of {folder.root} has an `output`; check this column")
    return Read(rows, [f"{empty} rows without a response dropped"] if empty else [], unread.told)
