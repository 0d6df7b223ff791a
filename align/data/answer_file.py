"""A file of responses, from a model or from people, for rows whose source does not publish any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from align.data.answers import FIELDS, paired
from align.data.files.tables import records
from align.errors import UserError
from align.rows import Row


def with_file(rows: Sequence[Row], path: str, what: str) -> tuple[list[Row], list[str]]:
    """Add the responses of the file to rows without one; return rows and facts, one line each. Raises UserError.

    Each response names its row by `id` or, without an id, by `prompt`; and by `role`, if the file has
    this column. Rows that still have no `response` are dropped.
    """
    if not Path(path).is_file():
        raise UserError(f"{what}={path}: not a file")
    given = _read(Path(path))
    found = [_given(row, given) for row in rows]
    _refuse_ambiguous(rows, found, f"{what}={path}")
    answered = [
        paired(replace(row, **_lacking(row, given[key]))) if key else row for row, key in zip(rows, found, strict=True)
    ]
    filled = [key for row, key in zip(rows, found, strict=True) if key and _lacking(row, given[key])]
    if not filled:
        raise UserError(
            f"{what}={path}: none of its {len(given)} responses matches, by id or prompt, a row without a response, "
            f"of {len(rows)} rows; check these columns"
        )
    kept = [row for row in answered if row.response is not None]
    facts = [
        f"{len(filled)} rows have responses from {path}; {len(given) - len(set(filled))} of its {len(given)} responses "
        "are not used"
    ]
    if len(kept) < len(answered):
        facts.append(f"{len(answered) - len(kept)} rows dropped without a response in the source or in {path}")
    return kept, facts


Key = tuple[str, str, str | None]
"""("id" or "prompt", its value, role)"""


def _read(path: Path) -> dict[Key, dict[str, Any]]:
    given: dict[Key, dict[str, Any]] = {}
    for record in records(path):
        by = ("id", record.name("id")) if record.get("id") not in (None, "") else ("prompt", record.text("prompt"))
        key = (*by, record.optional("role"))
        answers = {field: text for field in FIELDS if (text := record.optional(field)) and text.strip()}
        if not answers:
            raise UserError(
                f"{record.where}: expected `response` or `harmful_response`, found only the columns {', '.join(record)}"
            )
        if given.setdefault(key, answers) != answers:
            raise UserError(f"{record.where}: a second response for {key[0]} {key[1][:60]!r}; remove one of the two")
    return given


def _given(row: Row, given: Mapping[Key, Any]) -> Key | None:
    """The key of a row's response: by id before prompt, and with the role before without a role."""
    keys: list[Key] = [(*by, role) for by in (("id", row.id), ("prompt", row.prompt)) for role in (row.role, None)]
    return next((key for key in keys if key in given), None)


def _lacking(row: Row, answers: Mapping[str, str]) -> dict[str, Any]:
    """The responses that the row does not have yet. Only harmful rows get a harmful response."""
    return {
        field: text
        for field, text in answers.items()
        if getattr(row, field) is None and (field == "response" or row.role == "harmful")
    }


def _refuse_ambiguous(rows: Sequence[Row], found: Sequence[Key | None], what: str) -> None:
    """Raise UserError if one prompt's response would go to rows with different images, which are different requests."""
    shown: dict[Key, Row] = {}
    for row, key in zip(rows, found, strict=True):
        if key and key[0] == "prompt" and shown.setdefault(key, row).images != row.images:
            raise UserError(
                f"{what}: the response for prompt {key[1][:60]!r} matches rows with different images, {shown[key].id} "
                f"and {row.id}; name its row by `id`"
            )
