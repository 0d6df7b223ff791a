"""Image orientation: the EXIF or XMP orientation tag, applied as `transformers` and `datasets` apply it."""

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
"""{orientation: operation that turns the stored pixels upright}; other values leave the pixels unchanged."""
SWAPS_SIDES = (5, 6, 7, 8)
PNG_SIGNATURE = 8
PNG_TAGS = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
"""Chunks that can contain an orientation."""


def upright(pixels: Image.Image, opened: Image.Image) -> Image.Image:
    """Turn the decoded pixels of an image upright."""
    turn = TURNS.get(_orientation(opened.getexif))
    return pixels if turn is None else pixels.transpose(turn)


def upright_size(opened: Image.Image) -> tuple[int, int]:
    """(width, height) of the upright image. Reads only the header, but decodes a PNG with tags after its pixels."""
    width, height = _stored_size(opened)
    read = opened.getexif
    if opened.format == "PNG" and not _has_late_tags(opened.fp):  # type: ignore[attr-defined]
        read = functools.partial(
            Image.Image.getexif, opened
        )  # PngImageFile.getexif decodes the pixels to find tags after them
    return (height, width) if _orientation(read) in SWAPS_SIDES else (width, height)


def _orientation(read: Callable[[], Image.Exif]) -> int:
    try:
        found = read().get(ExifTags.Base.Orientation)
    except Exception:  # damaged tags raise any type; viewers show such an image as stored
        return UPRIGHT
    return found if isinstance(found, int) else UPRIGHT


def _stored_size(opened: Image.Image) -> tuple[int, int]:
    """(width, height) as stored in the file. Pillow turns a TIFF itself and reports the size after the turn."""
    tags = getattr(opened, "tag_v2", {})
    width, height = tags.get(ExifTags.Base.ImageWidth), tags.get(ExifTags.Base.ImageLength)
    return (width, height) if width and height else opened.size


def _has_late_tags(file: IO[bytes]) -> bool:
    """Whether a PNG has tags after its pixels, where ExifTool writes them. Reads only the chunk headers."""
    before = file.tell()
    file.seek(PNG_SIGNATURE)
    behind, late = False, False
    while len(head := file.read(8)) == 8 and not late:
        length, kind = struct.unpack(">I4s", head)
        behind = behind or kind == b"IDAT"
        late = behind and kind in PNG_TAGS
        file.seek(length + 4, os.SEEK_CUR)  # skip the content and its checksum
    file.seek(before)
    return late
