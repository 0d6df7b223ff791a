"""Rows that repeat another: the same question, case, punctuation and spacing apart, about the same pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from align.data.files.image_bytes import exists
from align.data.images import pixel_hash
from align.data.overlap import question_hash
from align.rows import Row


def without_duplicates(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The first of each, in order, and how many were left out. Raises UserError for an image that cannot be read."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for row, identity in zip(rows, identities(rows), strict=True):
        if identity not in seen:
            seen.add(identity)
            kept.append(row)
    return kept, len(rows) - len(kept)


def identities(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """What is the same for rows that repeat each other. Only images of questions that recur are decoded.

    An image that is absent goes by its name.
    """
    questions = [question_hash(row) for row in rows]
    times = Counter(questions)
    for row, question in zip(rows, questions, strict=True):
        if times[question] == 1:
            yield (question,)
        else:
            images = [pixel_hash(one, f"row {row.id}") if exists(one) else str(one.name) for one in row.images]
            yield (question, *images)
