"""Rows of the miniature as an evaluation mixes them: its sets, text alone and with images, in every
view that they have.
"""

from __future__ import annotations

from dataclasses import replace

from align.data.views import show
from align.miniature.rows import EVALUATION, evaluation_rows, training_rows
from align.rows import VIEWS, Row
from align.settings import Part


def mixed_rows(each: int) -> list[Row]:
    """`each` items of every set in every view, and as many requests without image; ids are unique."""
    with_images = [row for kind in EVALUATION for row in evaluation_rows(kind, each)]
    text = [row for kind in ("harmful", "benign") for row in training_rows(Part(subset=f"text_{kind}", rows=each))]
    shown = [replace(show(row, view, with_images), id=f"{row.id}.{view}") for row in with_images for view in VIEWS]
    return shown + text
