"""Repeated rows: the same question, ignoring case, punctuation and spacing, about the same pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from align.data.files.image_bytes import exists
from align.data.images import pixel_hash
from align.data.overlap import question_hash
from align.rows import Row


def without_duplicates(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The first of each group of repeated rows, and the number of dropped rows. Raises UserError
    for an unreadable image.
    """
    seen: set[tuple[str, ...]] = set()
    kept = []
    for row, identity in zip(rows, identities(rows), strict=True):
        if identity not in seen:
            seen.add(identity)
            kept.append(row)
    return kept, len(rows) - len(kept)


def identities(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """A key per row that is equal for repeated rows. Only images of recurring questions are decoded.

    An absent image is identified by its name.
    """
    questions = [question_hash(row) for row in rows]
    times = Counter(questions)
    for row, question in zip(rows, questions, strict=True):
        if times[question] == 1:
            yield (question,)
        else:
            images = [pixel_hash(one, f"row {row.id}") if exists(one) else str(one.name) for one in row.images]
            yield (question, *images)
