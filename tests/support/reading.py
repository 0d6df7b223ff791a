"""A part of the training data, read as a run reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from align.data.assembly import read_source
from align.data.reading import Read
from align.rows import Row
from align.settings import Part


def read(source: str, path: object, **more: object) -> Read:
    return read_source(Part(source=source, path=str(path), **more))


def counted(rows: Sequence[Row]) -> Counter:
    return Counter((row.role, row.harm_in) for row in rows)
