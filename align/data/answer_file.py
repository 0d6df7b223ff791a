"""A file of answers for rows that lack them: those that a source does not publish, written by a model or by people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from align.data.answers import FIELDS, paired
from align.data.files.records import records
from align.errors import UserError
from align.rows import Row


def with_file(rows: Sequence[Row], path: str, what: str) -> tuple[list[Row], list[str]]:
    """Rows with the answers of the file where they have none, and what was done, a line each. Raises UserError.

    The file says of each answer whose it is by the row's `id` or, without one, by its `prompt`; and by `role`, where it has that column.
    A row that has no `response` then either is left out.
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
            f"{what}={path}: none of its {len(given)} answers is for a row that lacks one, by id or prompt, of {len(rows)} rows"
        )
    kept = [row for row in answered if row.response is not None]
    facts = [
        f"{len(filled)} rows got answers of {path}; {len(given) - len(set(filled))} of its {len(given)} answers are not used"
    ]
    if len(kept) < len(answered):
        facts.append(f"{len(answered) - len(kept)} rows left out that have no response, in the source or in {path}")
    return kept, facts


Key = tuple[str, str, str | None]
"""(id or prompt, which one, role)"""


def _read(path: Path) -> dict[Key, dict[str, Any]]:
    given: dict[Key, dict[str, Any]] = {}
    for record in records(path):
        by = ("id", record.name("id")) if record.get("id") not in (None, "") else ("prompt", record.text("prompt"))
        key = (*by, record.optional("role"))
        answers = {field: text for field in FIELDS if (text := record.optional(field)) and text.strip()}
        if not answers:
            raise UserError(
                f"{record.where}: neither `response` nor `harmful_response`; found the columns {', '.join(record)}"
            )
        if given.setdefault(key, answers) != answers:
            raise UserError(f"{record.where}: a second answer for {key[0]} {key[1][:60]!r}; one of them must go")
    return given


def _given(row: Row, given: Mapping[Key, Any]) -> Key | None:
    """The answer that is a row's own: by its id before its prompt, with its role before without one."""
    keys: list[Key] = [(*by, role) for by in (("id", row.id), ("prompt", row.prompt)) for role in (row.role, None)]
    return next((key for key in keys if key in given), None)


def _lacking(row: Row, answers: Mapping[str, str]) -> dict[str, Any]:
    """Those that the row has not. A harmful answer is for harmful rows alone."""
    return {
        field: text
        for field, text in answers.items()
        if getattr(row, field) is None and (field == "response" or row.role == "harmful")
    }


def _refuse_ambiguous(rows: Sequence[Row], found: Sequence[Key | None], what: str) -> None:
    """Raises UserError where one prompt's answer would go to rows over different images, which ask different things."""
    shown: dict[Key, Row] = {}
    for row, key in zip(rows, found, strict=True):
        if key and key[0] == "prompt" and shown.setdefault(key, row).images != row.images:
            raise UserError(
                f"{what}: the answer for prompt {key[1][:60]!r} fits rows over different images, {shown[key].id} and {row.id}; "
                f"say by `id` whose it is"
            )
