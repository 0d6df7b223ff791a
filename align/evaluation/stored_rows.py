"""What a set asked, kept beside the answers in rows.jsonl: whoever looks at answers later sees to what they were given.

Images are not copied. A line says where each lies and what its pixels are, so that a replaced file is not taken for it.
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
    """Write a line for each row as it is, whatever view a model saw; `pixels` as in `Answered`."""
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
        "caption": row.caption,
        "reference": row.response,
        "images": [
            {"path": image.path, "inside": image.inside, "pixels": digest}
            for image, digest in zip(row.images, hashes, strict=True)
        ],
    }
