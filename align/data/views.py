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
    """Count training rows whose only evidence the view removes; an error unless allowed. Raises UserError."""
    conflicts = [row.id for row in rows if row.role == "harmful" and row.harm_in in HIDDEN_BY_VIEW.get(view, ())]
    if conflicts and not allow_label_conflict:
        raise UserError(
            f"view={view} hides the only evidence for the answer of {len(conflicts)} training rows (their harm lies in the image), "
            f"first: {', '.join(conflicts[:5])}; choose other rows or say allow_label_conflict=true"
        )
    return len(conflicts)
