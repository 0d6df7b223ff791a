"""Images: limited in size, decoded on demand, turned upright, and identified by their pixels.

Every image that a model, a judge, the report or a hash sees is opened here.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from align.data.files.archive import not_unpacked
from align.data.files.image_bytes import exists, open_encoded
from align.data.files.stamp import Stamp, stamp_of
from align.data.hints import option, text_view
from align.data.orientation import upright, upright_size
from align.errors import UserError
from align.rows import ImageRef, Row

MAX_PIXELS = 100_000_000
"""An image whose header gives more pixels is rejected before decoding (a decompression bomb)."""


SIXTEEN_BITS = ("PNG", "PPM")
"""Formats whose mode `I` means 16-bit values."""

DECODING = 3
"""Version of the decoder. It changes when a file decodes to other pixels, so older cached hashes are not reused
(2: upright; 3: TIFF too)."""


def load_image(image: ImageRef, where: str) -> Image.Image:
    """Decode one image to RGB, upright. `where` names the row in errors. Raises UserError.

    The returned image has no metadata: with its orientation tag it would be turned a second time.
    """
    with _opened(image, where) as opened:
        _refuse_damaged(opened)
        opened.load()
        decoded = upright(_rgb(opened), opened)
    decoded.info = {}
    return decoded


def _rgb(opened: Image.Image) -> Image.Image:
    if opened.mode.startswith("I"):  # 16-bit grey, which convert() would clip to 8 bits instead of scaling
        return Image.fromarray((np.asarray(opened) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return opened.convert("RGB")


def image_size(image: ImageRef, where: str) -> tuple[int, int]:
    """(width, height) in pixels of the image that `load_image` returns, from the header alone. Raises UserError."""
    with _opened(image, where) as opened:
        return upright_size(opened)


@contextlib.contextmanager
def _opened(image: ImageRef, where: str) -> Iterator[Image.Image]:
    """Open an image and check its header. Errors of reading or decoding it become UserErrors that name the image."""
    name = image.name or "(bytes in the row)"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with open_encoded(image) as file, Image.open(file) as opened:
                _refuse_unclear(opened, f"{where}: image {name}")
                yield opened
    except FileNotFoundError as error:
        raise UserError(f"{where}: image {name} does not exist") from error
    except UserError:
        raise
    except (
        Exception
    ) as error:  # on damaged files decoders raise many types: struct.error, KeyError, AssertionError, ...
        said = f"{type(error).__name__}: {error}"
        raise UserError(f"{where}: image {name} cannot be read: {said}; replace the file or remove the row") from error


def _refuse_damaged(opened: Image.Image) -> None:
    """Raise SyntaxError or OSError for damage that decoding ignores: a PNG with wrong checksums, a truncated GIF."""
    file = getattr(opened, "fp", None)
    if file is None or opened.format not in ("PNG", "GIF"):
        return
    at = file.tell()
    file.seek(0)
    if opened.format == "PNG":
        Image.open(file, formats=["PNG"]).verify()
    elif (
        not file.read().rstrip(b"\0").endswith(b";")
    ):  # an animation without its last frames looks like one still image
        raise OSError("the file is truncated")
    file.seek(at)


def _refuse_unclear(opened: Image.Image, named: str) -> None:
    """Raise UserError for an image that is too large to decode, or that is not one still image with
    displayable values.
    """
    if opened.width * opened.height > MAX_PIXELS:
        raise UserError(
            f"{named} has {opened.width} x {opened.height} pixels, expected at most {MAX_PIXELS:,} pixels; save a "
            "smaller image"
        )
    # MPO is a photograph plus a preview or the image of a second lens: the first frame is the image.
    frames = getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "MPO":
        raise UserError(
            f"{named} has {frames} frames, but a model would see only the first; save the intended frame as one image"
        )
    if opened.mode == "F" or (opened.mode == "I" and opened.format not in SIXTEEN_BITS):
        kind = "floating-point values" if opened.mode == "F" else "32-bit values"
        raise UserError(f"{named} has {kind}, which do not define black and white; save it as 8-bit RGB")
    if opened.format == "EPS":  # Pillow would run it with Ghostscript
        raise UserError(f"{named} is PostScript, which is a program and not an image; save it as PNG")


def encode_png(image: Image.Image) -> ImageRef:
    """Encode an image in memory as PNG bytes for a row."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return ImageRef(bytes=buffer.getvalue())


def pixel_hash(image: ImageRef, where: str) -> str:
    """A hash of the decoded pixels, independent of the file format. Raises UserError."""
    file = Path(image.path) if image.path and image.bytes is None else None
    try:
        return _pixel_hash(image, stamp_of(file) if file else None)
    except (UserError, OSError, ValueError):
        load_image(image, where)  # raises the same error with the row's name
        raise


@functools.lru_cache(maxsize=1 << 16)
def _pixel_hash(image: ImageRef, stamp: Stamp | None) -> str:
    """`decoded_hash`, cached: an evaluation needs it several times; `stamp` changes with the file."""
    return decoded_hash(image, "image")


def decoded_hash(image: ImageRef, where: str) -> str:
    """`pixel_hash` without the cache. Raises UserError."""
    decoded = load_image(image, where)
    return hashlib.sha256(f"{decoded.size}".encode() + decoded.tobytes()).hexdigest()


def drop_missing(rows: list[Row], on_missing_image: str, source: str) -> tuple[list[Row], str | None]:
    """Rows whose image files exist, and a line that counts and names absent files (None if all exist).

    An absent file is an error unless on_missing_image=drop. Raises UserError.
    """
    if on_missing_image not in ("error", "drop"):
        raise UserError(f"{source}: {option(f'on_missing_image={on_missing_image}')}: expected error or drop")
    lacking = [[str(image.name) for image in row.images if not exists(image)] for row in rows]
    kept = [row for row, paths in zip(rows, lacking, strict=True) if not paths]
    if len(kept) == len(rows):
        return rows, None
    files = sorted({path for paths in lacking for path in paths})
    fact = f"{source}: {len(rows) - len(kept)} of {len(rows)} rows lack their image; {len(files)} files absent: {', '.join(files[:5])}"
    fact += ", ..." if len(files) > 5 else ""
    fact += f". {unpack}" if (unpack := not_unpacked(Path(files[0]))) else ""
    if on_missing_image == "error":
        without = f", or {text_view()} to show no images" if text_view() else ""
        raise UserError(
            f"{fact}. Add these files, or set {option('on_missing_image=drop')} to drop these rows{without}"
        )
    return kept, fact
