"""Columns that look like images and are not read: a file with images in a column `image_path` does have images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from align.data.files.embedded import is_base64, is_image
from align.data.files.parquet import INSIDE
from align.data.files.records import Record, brief

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic")
LONGEST_NAME = 1000
TEXT_BEGINNINGS = ("data:image/", "iVBORw0KGgo", "/9j/")
"""First characters of images written as text: a data URL; PNG and JPEG in base64, however short."""


class UnreadImages:
    """The columns of a file's records that are not read."""

    def __init__(self, read: Collection[str]):
        self._read = read
        self._columns: dict[str, None] = {}
        self._filled, self._alike = Counter[str](), Counter[str]()
        self._first: dict[str, str] = {}

    def see(self, record: Record) -> None:
        """Count the columns of one record."""
        self._columns |= dict.fromkeys(record)
        for column in record.keys() - self._read:
            value = record[column]
            if value in (None, "", []):
                continue
            self._filled[column] += 1
            if looks_like_image(value):
                self._alike[column] += 1
                self._first.setdefault(column, f"{record.where}: {brief(value)}")

    @property
    def found(self) -> list[str]:
        """Unread columns that are mostly images."""
        return [column for column in self._columns if self._alike[column] * 2 > self._filled[column]]

    @property
    def told(self) -> str | None:
        """A text about unread image columns, with the file's columns; None if there are none."""
        found = self.found
        if not found:
            return None
        named = ", ".join(f"`{column}` ({self._first[column]})" for column in found)
        return f"these columns look like images and are not read: {named}. The file has the columns {', '.join(self._columns)}"


def looks_like_image(value: Any) -> bool:
    """Whether a value is an image file's name, an encoded image, a cell of `datasets`, or a list of these."""
    if isinstance(value, list):
        return bool(value) and all(map(looks_like_image, value))
    if isinstance(value, dict):
        return INSIDE in value or isinstance(value.get("bytes"), bytes | str) or looks_like_image(value.get("path"))
    if isinstance(value, bytes):
        return is_image(value)
    if not isinstance(value, str):
        return False
    named = len(value) <= LONGEST_NAME and "\n" not in value and value.rstrip().lower().endswith(ENDINGS)
    return named or value.startswith(TEXT_BEGINNINGS) or is_base64(value)
