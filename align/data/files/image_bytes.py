"""The encoded bytes of an image, wherever they are: a file, a zip archive, a parquet table, or the row itself."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

from align.data.files import archive, parquet
from align.data.files.formats import ending_of
from align.rows import ImageRef


def open_encoded(image: ImageRef) -> BinaryIO:
    """What is to be decoded: a file, or bytes, read from the archive or table that they lie in.

    Open, not by its name: Pillow maps a named TIFF into memory as if it were upright, and scrambles one that is turned.
    """
    if image.bytes is not None:
        return io.BytesIO(image.bytes)
    file = Path(str(image.path))
    if image.inside is None:
        return file.open("rb")
    if ending_of(file) == ".parquet":
        return io.BytesIO(parquet.image(file, image.inside))
    return io.BytesIO(archive.content(file, image.inside))


def exists(image: ImageRef) -> bool:
    """Whether its file is there, and where it lies in an archive whether that has it."""
    if image.path is None:
        return True
    file = Path(image.path)
    if not file.is_file():
        return False
    return image.inside is None or ending_of(file) == ".parquet" or image.inside in archive.members(file)
