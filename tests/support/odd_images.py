"""Image files that are not what they should be, or unusual, and the pixels that a model should see of them."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps


def png(*colour: int, size: tuple[int, int] = (8, 6)) -> bytes:
    return saved(Image.new("RGB", size, colour or (200, 30, 30)), "PNG")


def saved(image: Image.Image, kind: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def _gradient(mode: str = "RGB") -> Image.Image:
    return Image.linear_gradient("L").resize((8, 6)).convert(mode)


def bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A PNG whose header claims so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def _frames(kind: str, **more: Any) -> bytes:
    return saved(_gradient(), kind, save_all=True, append_images=[Image.new("RGB", (8, 6), "blue")], **more)


def _sixteen_bits(rgb: bool) -> tuple[bytes, np.ndarray]:
    """A PNG of 16 bits with values that would all be white if they were cut and not scaled."""
    values = np.linspace(256, 65535, 48).astype(np.uint16).reshape(6, 8)
    if not rgb:
        return saved(Image.fromarray(values), "PNG"), np.stack([values >> 8] * 3, -1).astype(np.uint8)
    pixels = np.stack([values, values[::-1], values[:, ::-1]], -1)
    raw = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0)
    made = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return made, (pixels >> 8).astype(np.uint8)


def as_pil(content: bytes) -> np.ndarray:
    with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as opened:
        warnings.simplefilter("ignore")
        return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))


def _turned(kind: str) -> bytes:
    turned = Image.Exif()
    turned[274] = 6
    return saved(_gradient(), kind, exif=turned)


def _two_views() -> bytes:
    """A photograph with a second image beside it, as a camera with two lenses writes it."""
    return saved(_gradient(), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 6), "blue")])


@cache
def images() -> dict[str, tuple[bytes, np.ndarray | None]]:
    """{what is wrong or unusual: (the file, the pixels that it stands for; None where it must be refused)}"""
    base = png()
    palette = _gradient().quantize(8)
    grey_16, grey_16_seen = _sixteen_bits(rgb=False)
    rgb_16, rgb_16_seen = _sixteen_bits(rgb=True)
    whole = {
        "CMYK JPEG": saved(_gradient("CMYK"), "JPEG"),
        "1 bit": saved(_gradient("1"), "PNG"),
        "palette": saved(palette, "PNG"),
        "palette, one colour transparent": saved(palette, "PNG", transparency=0),
        "palette, colours transparent": saved(palette, "PNG", transparency=bytes(range(8))),
        "grey with alpha": saved(_gradient("LA"), "PNG"),
        "RGB with alpha": saved(Image.merge("RGBA", [*_gradient().split(), _gradient("L")]), "PNG"),
        "GIF of one frame": saved(palette, "GIF"),
        "WebP": saved(_gradient(), "WEBP", lossless=True),
        "BMP": saved(_gradient(), "BMP"),
        "TIFF": saved(_gradient(), "TIFF"),
        "two lenses": _two_views(),
        "turned by EXIF": _turned("PNG"),
        "JPEG turned by EXIF": _turned("JPEG"),
        "something behind the end": base + b"behind",
    }
    refused = {
        "no bytes": b"",
        "half": base[: len(base) // 2],
        "half a JPEG": saved(_gradient().resize((64, 64)), "JPEG")[:500],
        "50,000 x 50,000": bomb(),
        "no pixels": bomb(0, 0),
        "animated GIF": _frames("GIF"),
        "animated PNG": _frames("PNG"),
        "animated WebP": _frames("WEBP", lossless=True),
        "TIFF of two pages": _frames("TIFF"),
        "floating-point TIFF": saved(Image.fromarray(np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)), "TIFF"),
        "32-bit TIFF": saved(Image.fromarray(np.linspace(0, 2**30, 48).astype(np.int32).reshape(6, 8)), "TIFF"),
        "text": b"not an image",
        "HTML": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n%%EOF\n",
    }
    known: dict[str, tuple[bytes, np.ndarray | None]] = {name: (made, as_pil(made)) for name, made in whole.items()}
    known |= {name: (made, None) for name, made in refused.items()}
    return known | {"16 bits of grey": (grey_16, grey_16_seen), "16 bits of RGB": (rgb_16, rgb_16_seen)}
