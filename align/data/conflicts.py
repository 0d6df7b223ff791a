"""Rows with opposite responses to one request: a model trained on both learns neither."""

from __future__ import annotations

from collections.abc import Sequence

from align.data.overlap import text_hash
from align.errors import UserError
from align.rows import Row

NAMED = 5


def conflicts_of(rows: Sequence[Row], pixels: Sequence[Sequence[str]], allowed: bool) -> list[str]:
    """Report requests that are harmful in one row and benign in another, or have opposite preferences.

    `pixels` has the hashes of each row's images. Rows are as the model sees them: the same words with
    the same pixels are one request. Raises UserError unless conflicts are allowed.
    """
    requests: dict[tuple[str, ...], list[Row]] = {}
    for row, shown in zip(rows, pixels, strict=True):
        requests.setdefault((text_hash("\n".join(row.requests)), *shown), []).append(row)
    pairs = [pair for same in requests.values() if len(same) > 1 and (pair := _opposite(same))]
    if not pairs:
        return []
    first = ", ".join(f"{one.id} and {other.id}" for one, other in pairs[:NAMED])
    line = f"{len(pairs)} requests have opposite responses in the training data: {first}{', ...' if len(pairs) > NAMED else ''}"
    if not allowed:
        raise UserError(
            f"{line}; remove one row of each pair, correct its role, or train on both with allow_label_conflict=true"
        )
    return [f"{line} (allow_label_conflict: true)"]


def _opposite(rows: Sequence[Row]) -> tuple[Row, Row] | None:
    """Two rows of one request with opposite responses, or None."""
    first = rows[0]
    if other := next((row for row in rows if row.role != first.role), None):
        return first, other
    preferred = {row.chosen: row for row in rows if row.chosen and row.rejected}
    return next(((preferred[row.rejected], row) for row in rows if row.chosen and row.rejected in preferred), None)
