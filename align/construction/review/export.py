"""What reviewers get: review.csv, and review.html, one page that needs no network."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.construction.item import Item
from align.construction.steps.paint import asked
from align.data.images import load_image
from align.files import write_text
from align.report.page.embed import environment, for_script, script_hash
from align.rows import ImageRef

FOLDER = "review"
COLUMNS = ("id", "key", "query", "image", "benign_image", "category", "element", "person", "decision", "note")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would run."""
LARGEST = 768
"""Pixels of the longer side of an image in the page; the csv names the original files."""
HERE = Path(__file__).parent


def key_of(item: Item) -> str:
    """A hash of what the reviewer sees: a decision about another text or image does not count."""
    told = json.dumps([item.id, asked(item), item.image, item.benign_image])
    # The letter keeps a spreadsheet from reading a key as a number.
    return "k" + hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def export(items: Sequence[Item], folder: Path) -> list[Path]:
    """Write the table and the page for reviewers -> their paths. Raises UserError for an unreadable image."""
    files = [folder / FOLDER / "review.csv", folder / FOLDER / "review.html"]
    write_text(files[0], _table(items))
    write_text(files[1], page(items, folder))
    return files


def _table(items: Sequence[Item]) -> str:
    text = io.StringIO()
    rows = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    rows.writeheader()
    for item in items:
        shown = {
            "image": item.image,
            "benign_image": item.benign_image,
            "category": item.category,
            "element": item.element,
        }
        row = {"id": item.id, "key": key_of(item), "query": asked(item), **shown}
        rows.writerow({column: _as_text(value) for column, value in row.items()})
    return text.getvalue()


def _as_text(value: str | None) -> str:
    """A cell that no spreadsheet runs as a formula: an apostrophe marks it as text."""
    return f"'{value}" if value and value[0] in FORMULA else value or ""


def page(items: Sequence[Item], folder: Path) -> str:
    """The page: one item at a time, its images blurred until asked, decisions by key, saved as a file."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    rendered: str = (
        environment(HERE)
        .get_template("page.html.j2")
        .render(
            n=len(items),
            payload=for_script([_shown(item, folder) for item in items]),
            style=(HERE / "page.css").read_text(encoding="utf-8"),
            script=script,
            script_hash=script_hash(script),
        )
    )
    return rendered


def _shown(item: Item, folder: Path) -> dict[str, Any]:
    return {
        "id": item.id,
        "key": key_of(item),
        "query": asked(item),
        "leak": item.query_leak,
        "category": " / ".join(filter(None, (item.category, item.subcategory))),
        "element": item.element,
        "image": _inline(item.image, item.id, folder),
        "benign": _inline(item.benign_image, item.id, folder),
    }


def _inline(path: str | None, item_id: str, folder: Path) -> str | None:
    """An image as a data URL, at most LARGEST pixels wide and high."""
    if path is None:
        return None
    image = load_image(ImageRef(path=str(folder / path)), f"item {item_id}")
    image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
