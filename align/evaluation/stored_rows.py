"""Rows of a benchmark, stored in rows.jsonl to show requests with responses later.

Images are not copied. A line stores the path and the pixel hash of each image, so that a replaced
file is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.files import write_text
from align.rows import Row

FILE = "rows.jsonl"


def write_requests(folder: Path, rows: Sequence[Row], pixels: Mapping[str, Sequence[str]] | None) -> None:
    """Write a line for each row in its original form, for any view; `pixels` as in `Answered`."""
    lines = [json.dumps(_record(row, pixels), default=str) + "\n" for row in rows]
    write_text(folder / FILE, "".join(lines))


def _record(row: Row, pixels: Mapping[str, Sequence[str]] | None) -> dict[str, Any]:
    hashes = pixels[row.id] if pixels else [None] * len(row.images)
    return {
        "id": row.id,
        "role": row.role,
        "harm_in": row.harm_in,
        "twin": row.twin,
        "category": row.category,
        "columns": row.columns,
        "prompt": row.prompt,
        "request": row.request,
        **({"history": [{"role": turn.role, "text": turn.text} for turn in row.history]} if row.history else {}),
        "caption": row.caption,
        "reference": row.response,
        "images": [
            {"path": image.path, "inside": image.inside, "pixels": digest}
            for image, digest in zip(row.images, hashes, strict=True)
        ],
    }
