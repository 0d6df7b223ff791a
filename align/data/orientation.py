"""How an image is turned: the EXIF or XMP orientation tag, applied as `transformers` and `datasets` apply it."""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Callable
from typing import IO

from PIL import ExifTags, Image

UPRIGHT = 1
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""{orientation: what turns the stored pixels upright}; with any other value they are shown as they are stored."""
SWAPS_SIDES = (5, 6, 7, 8)
PNG_SIGNATURE = 8
PNG_TAGS = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
"""Chunks that can hold an orientation."""


def upright(pixels: Image.Image, opened: Image.Image) -> Image.Image:
    """The pixels of an image that was decoded, with its top at the top."""
    turn = TURNS.get(_orientation(opened.getexif))
    return pixels if turn is None else pixels.transpose(turn)


def upright_size(opened: Image.Image) -> tuple[int, int]:
    """(width, height) that an image has once it is upright. Its header is read; a PNG with tags behind its pixels is decoded."""
    width, height = _stored_size(opened)
    read = opened.getexif
    if opened.format == "PNG" and not _has_late_tags(opened.fp):  # type: ignore[attr-defined]
        read = functools.partial(
            Image.Image.getexif, opened
        )  # PngImageFile's own decodes the pixels, to look behind them
    return (height, width) if _orientation(read) in SWAPS_SIDES else (width, height)


def _orientation(read: Callable[[], Image.Exif]) -> int:
    try:
        found = read().get(ExifTags.Base.Orientation)
    except Exception:  # whatever damaged tags lead to; viewers show such an image as it is stored
        return UPRIGHT
    return found if isinstance(found, int) else UPRIGHT


def _stored_size(opened: Image.Image) -> tuple[int, int]:
    """As the pixels lie in the file. Pillow turns a TIFF itself, and gives the size that it has then."""
    tags = getattr(opened, "tag_v2", {})
    width, height = tags.get(ExifTags.Base.ImageWidth), tags.get(ExifTags.Base.ImageLength)
    return (width, height) if width and height else opened.size


def _has_late_tags(file: IO[bytes]) -> bool:
    """Whether a PNG has tags behind its pixels, where ExifTool writes them. Only the heads of its chunks are read."""
    before = file.tell()
    file.seek(PNG_SIGNATURE)
    behind, late = False, False
    while len(head := file.read(8)) == 8 and not late:
        length, kind = struct.unpack(">I4s", head)
        behind = behind or kind == b"IDAT"
        late = behind and kind in PNG_TAGS
        file.seek(length + 4, os.SEEK_CUR)  # behind the content comes its check sum
    file.seek(before)
    return late
