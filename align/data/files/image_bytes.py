"""The encoded bytes of an image in a file, an archive, a parquet table, or the row itself."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

from align.data.files import archive, parquet
from align.data.files.formats import ending_of
from align.rows import ImageRef


def open_encoded(image: ImageRef) -> BinaryIO:
    """Open an image for decoding: its file, or its bytes read from an archive or table.

    Returns an open file instead of a name: Pillow memory-maps a named TIFF as if it were upright,
    which scrambles a turned one.
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
    """Whether the image's file exists and, for an image in an archive, whether the archive contains it."""
    if image.path is None:
        return True
    file = Path(image.path)
    if not file.is_file():
        return False
    return image.inside is None or ending_of(file) == ".parquet" or image.inside in archive.members(file)
