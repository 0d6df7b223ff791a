"""Images of the page: small copies as data URLs, each once, up to a total size."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from align.data.files.image_bytes import exists
from align.data.images import decoded_hash, load_image
from align.errors import UserError
from align.report.names import shortened
from align.rows import ImageRef, Row

SIDE = 320
"""Longer side of a copy, pixels."""
QUALITY = 72


class Images:
    """Copies of images by the hash of their pixels; `room` is in bytes."""

    def __init__(self, room: int):
        self.room, self.found, self._absent = room, dict[str, str](), dict[str, str]()
        self.left_out = 0
        self._made: dict[str, dict[str, tuple[ImageRef, ...]]] = {}

    def add(self, record: dict[str, Any], set_name: str) -> tuple[str | None, str]:
        """-> (key of a row's first image in `found`, None if it is not shown; the reason).

        `record` is a line of rows.jsonl. An image without a file is generated again by its
        benchmark.
        """
        images = record["images"]
        if not images:
            return None, "no image"
        image = images[0]
        key = image["pixels"]
        if (
            not isinstance(key, str) or not key
        ):  # without the hash any local file could be taken for the image that the model saw
            return None, "not shown: the hash of its pixels was not stored"
        if key in self.found:
            return key, ""
        if key not in self._absent:
            self._absent[key] = self._load(record, image, key, set_name)
        return (key, "") if key in self.found else (None, self._absent[key])

    def _load(self, record: dict[str, Any], image: dict[str, Any], key: str, set_name: str) -> str:
        """Make the copy -> the reason if there is none, else empty."""
        if self.room <= 0:
            self.left_out += 1
            return "left out: the page is full (images_mb=)"
        try:
            reference = ImageRef(path=image["path"], inside=image["inside"])
            if image["path"] is None:
                made = self._of_benchmark(set_name).get(record["id"], ())
                if not made:
                    return "image not available: its benchmark generates it, and no longer has this row"
                reference = made[0]
            elif not exists(reference):  # false for devices and pipes too, which may never end
                return "image not available: its file does not exist"
            if decoded_hash(reference, f"row {record['id']}") != key:
                return "not shown: the file is no longer the image that the model saw"
            url = _copy(load_image(reference, f"row {record['id']}"))
        except UserError as error:
            return f"image not available: {shortened(str(error))}"
        self.found[key] = url
        self.room -= len(url)
        return ""

    def _of_benchmark(self, set_name: str) -> dict[str, tuple[ImageRef, ...]]:
        from align.config.registry import BENCHMARKS, resolve
        from align.settings import BenchmarkSettings

        # The name comes from a folder; resolving `module:name` would import foreign code.
        if not BENCHMARKS.get(set_name, "").startswith("align.miniature."):
            return {}
        if set_name not in self._made:
            rows: list[Row] = []
            for subset in (None, "validation"):
                rows += resolve("benchmark", set_name, BENCHMARKS).every(BenchmarkSettings(subset=subset)).rows
            self._made[set_name] = {row.id: row.images for row in rows}
        return self._made[set_name]


def _copy(image: Image.Image) -> str:
    """A small copy as a data URL; a small image is copied unchanged."""
    small = max(image.size) <= SIDE // 2
    if not small:
        image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, **({"format": "PNG"} if small else {"format": "WEBP", "quality": QUALITY}))
    kind = "png" if small else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
