"""Several calls of a model for one row, told apart by the row's id: a sample depends on it (sampling.py)."""

from __future__ import annotations

import re

CALL = re.compile(r" \(call (\d+)\)$")


def call_id(row_id: str, number: int) -> str:
    """The id of a row in its call `number`, from 0; the first call has the row's own id."""
    return row_id if number == 0 else f"{row_id} (call {number + 1})"


def call_of(row_id: str) -> int:
    """The number of the call, from 0."""
    found = CALL.search(row_id)
    return int(found[1]) - 1 if found else 0
