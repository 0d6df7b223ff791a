"""Images: bounded, decoded on demand, turned upright, and recognised by their pixels.

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

from align.data.files.image_bytes import exists, open_encoded
from align.data.files.stamp import Stamp, stamp_of
from align.data.hints import option, text_view
from align.data.orientation import upright, upright_size
from align.errors import UserError
from align.rows import ImageRef, Row

MAX_PIXELS = 100_000_000
"""A header that claims more than this is refused before anything is decoded (a decompression bomb)."""


SIXTEEN_BITS = ("PNG", "PPM")
"""Formats of which mode `I` stands for values of 16 bits."""

DECODING = 3
"""Changes when the same file decodes to other pixels: hashes that an earlier version cached are not reused (2: upright, 3: TIFF too)."""


def load_image(image: ImageRef, where: str) -> Image.Image:
    """Decode one image to RGB, upright. `where` names the row in errors. Raises UserError.

    Nothing of the file but its pixels is returned: an orientation tag that stays would turn them a second time.
    """
    with _opened(image, where) as opened:
        _refuse_damaged(opened)
        opened.load()
        decoded = upright(_rgb(opened), opened)
    decoded.info = {}
    return decoded


def _rgb(opened: Image.Image) -> Image.Image:
    if opened.mode.startswith("I"):  # 16 bits of grey, which convert() would cut to 8 and not scale
        return Image.fromarray((np.asarray(opened) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return opened.convert("RGB")


def image_size(image: ImageRef, where: str) -> tuple[int, int]:
    """(width, height) in pixels, as `load_image` gives it, from the header alone. Raises UserError."""
    with _opened(image, where) as opened:
        return upright_size(opened)


@contextlib.contextmanager
def _opened(image: ImageRef, where: str) -> Iterator[Image.Image]:
    """An image whose header is read and found to be bounded. Errors of decoding it are named too. Raises UserError."""
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
    ) as error:  # decoders raise whatever a damaged file leads them to: struct.error, KeyError, AssertionError, ...
        said = f"{type(error).__name__}: {error}"
        raise UserError(f"{where}: image {name} cannot be read: {said}; replace the file or remove the row") from error


def _refuse_damaged(opened: Image.Image) -> None:
    """Raises SyntaxError or OSError for damage that decoding passes over: a PNG that is not what its check sums are of, a GIF cut short."""
    file = getattr(opened, "fp", None)
    if file is None or opened.format not in ("PNG", "GIF"):
        return
    at = file.tell()
    file.seek(0)
    if opened.format == "PNG":
        Image.open(file, formats=["PNG"]).verify()
    elif (
        not file.read().rstrip(b"\0").endswith(b";")
    ):  # without its last frames an animation looks like one still image
        raise OSError("the file ends before its end")
    file.seek(at)


def _refuse_unclear(opened: Image.Image, named: str) -> None:
    """Raises UserError for an image too large to decode, and for one that is not one still image of what can be seen."""
    if opened.width * opened.height > MAX_PIXELS:
        raise UserError(f"{named} is {opened.width} x {opened.height}; at most {MAX_PIXELS:,} pixels are decoded")
    # MPO is a photograph with a preview or a second lens's image beside it: the first is the image.
    frames = getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "MPO":
        raise UserError(
            f"{named} has {frames} frames, of which a model would see the first alone; save the one that is meant"
        )
    if opened.mode == "F" or (opened.mode == "I" and opened.format not in SIXTEEN_BITS):
        kind = "floating-point values" if opened.mode == "F" else "32-bit values"
        raise UserError(f"{named} holds {kind}, which say not what is black and white; save it as 8-bit RGB")
    if opened.format == "EPS":  # which Pillow would hand to Ghostscript
        raise UserError(f"{named} is PostScript, a program and not an image; save it as PNG")


def encode_png(image: Image.Image) -> ImageRef:
    """An image made in memory, as bytes that a row can carry."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return ImageRef(bytes=buffer.getvalue())


def pixel_hash(image: ImageRef, where: str) -> str:
    """The same for the same decoded pixels, whatever the file format. Raises UserError."""
    file = Path(image.path) if image.path and image.bytes is None else None
    try:
        return _pixel_hash(image, stamp_of(file) if file else None)
    except (UserError, OSError, ValueError):
        load_image(image, where)  # the same error again, with the name of the row
        raise


@functools.lru_cache(maxsize=1 << 16)
def _pixel_hash(image: ImageRef, stamp: Stamp | None) -> str:
    """An image is asked for several times in an evaluation; `stamp` changes with its file."""
    return decoded_hash(image, "image")


def decoded_hash(image: ImageRef, where: str) -> str:
    """`pixel_hash`, decoded now and not remembered. Raises UserError."""
    decoded = load_image(image, where)
    return hashlib.sha256(f"{decoded.size}".encode() + decoded.tobytes()).hexdigest()


def drop_missing(rows: list[Row], on_missing_image: str, source: str) -> tuple[list[Row], str | None]:
    """Rows whose image files are there, and a line that counts and names what is absent (None if nothing is).

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
    if on_missing_image == "error":
        without = f", or {text_view()} to show no images" if text_view() else ""
        raise UserError(
            f"{fact}. Put them there, or set {option('on_missing_image=drop')} to leave these rows out{without}"
        )
    return kept, fact
