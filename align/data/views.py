"""A view decides what of a row the model sees, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from align.errors import UserError
from align.rows import Row

VIEWS: dict[str, Callable[[Row], Row]] = {
    "image": lambda row: row,
    "text": lambda row: replace(row, images=()),
}
HIDDEN_BY_VIEW = {"text": ("image",)}
"""Where the harm of a row lies when a view hides all evidence of it."""


def apply_view(rows: Iterable[Row], view: str) -> list[Row]:
    """Rows as the model sees them. Raises UserError for an unknown view."""
    if view not in VIEWS:
        raise UserError(f"view={view}: expected one of {', '.join(VIEWS)}")
    return [VIEWS[view](row) for row in rows]


def check_labels(rows: Iterable[Row], view: str, allow_label_conflict: bool) -> int:
    """Count training rows whose only evidence the view removes; an error unless allowed. Raises UserError.

    A harmful row is in conflict where its harm lies only in what is hidden; a benign one where it had an image, since its answer
    may be about that image.
    """
    rows = list(rows)
    unseen = [row.id for row in rows if row.harm_in == "image" and not row.images]
    if unseen:
        raise UserError(
            f"{len(unseen)} training rows say harm_in=image and have no image, first: {', '.join(unseen[:5])}"
        )
    hidden = HIDDEN_BY_VIEW.get(view, ())
    conflicts = [
        row.id for row in rows if (row.harm_in in hidden if row.role == "harmful" else "image" in hidden and row.images)
    ]
    if conflicts and not allow_label_conflict:
        raise UserError(
            f"view={view} hides the only evidence for the answer of {len(conflicts)} training rows (it lies in their image), "
            f"first: {', '.join(conflicts[:5])}; choose other rows or say allow_label_conflict=true"
        )
    return len(conflicts)
