"""Generated responses for rows whose source has none: which rows get one, what the model is asked, and the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from align.errors import UserError
from align.rows import Row
from align.settings import Part

FIELDS = ("response", "harmful_response")
GENERATE = "generate"

Ask = Callable[[Sequence[Row]], tuple[Sequence[str], str]]
"""Rows -> (one response per row, which model wrote them: a fact to record)"""


def check_settings(name: str, part: Part) -> None:
    """Raise UserError for any value other than null and `generate`."""
    for field in FIELDS:
        if getattr(part, field) not in (None, GENERATE):
            raise UserError(
                f"data.{name}.{field}={getattr(part, field)}: expected generate, or null to use only the source's "
                "responses"
            )


def paired(row: Row) -> Row:
    """Return the row with `response` also as `chosen` and, if harmful, `harmful_response` also as
    `rejected`, and the reverse.

    Only absent values are filled in. The rejected response of a benign row need not be harmful, so
    it is not copied.
    """
    row = replace(row, response=_first(row.response, row.chosen), chosen=_first(row.chosen, row.response))
    if row.role != "harmful":
        return row
    harmful, rejected = row.harmful_response, row.rejected
    return replace(row, harmful_response=_first(harmful, rejected), rejected=_first(rejected, harmful))


def _first(answer: str | None, other: str | None) -> str | None:
    """The first response, or the other if the first is None; a blank response is kept."""
    return other if answer is None else answer


def lacking(row: Row, part: Part) -> list[str]:
    """The fields of a row that a model must fill in."""
    row = paired(row)
    return [
        field
        for field in FIELDS
        if getattr(part, field) == GENERATE
        and getattr(row, field) is None
        and (field == "response" or row.role == "harmful")
    ]


def check_rows(name: str, rows: Sequence[Row], part: Part) -> None:
    """Raise UserError if a row would get the same generated text as its safe and its harmful response."""
    both = [row.id for row in rows if len(lacking(row, part)) > 1]
    if both:
        raise UserError(
            f"data.{name}: {len(both)} harmful rows have neither `response` nor `harmful_response`, and one model "
            f"would write the same text for both, first: {', '.join(both[:5])}; add one of the two to the source, or "
            "generate only one"
        )


def with_answers(
    shown: Sequence[Row], own: Sequence[Row], parts: Sequence[str], settings: dict[str, Part], ask: Ask
) -> tuple[list[Row], list[str]]:
    """Add generated responses to the shown rows; return the rows and the facts to record.

    `own` has the same rows before a view changed them: arms with different views of a row get the same
    response. `parts` has the name of each row's part.
    """
    wanted = [(i, field) for i, row in enumerate(shown) for field in lacking(row, settings[parts[i]])]
    answers: dict[int, dict[str, Any]] = {}
    facts = []
    if wanted:
        texts, whose = ask([replace(own[i], prompt=own[i].asked or own[i].prompt) for i, _ in wanted])
        answers = {i: {field: text} for (i, field), text in zip(wanted, texts, strict=True)}
        counts = Counter((parts[i], field) for i, field in wanted)
        what = "; ".join(f"data.{part}: {field} of {count} rows" for (part, field), count in counts.items())
        facts = [f"{what} {whose}"]
    generating = {name for name, part in settings.items() if GENERATE in (part.response, part.harmful_response)}
    answered = [replace(row, **answers.get(i, {})) for i, row in enumerate(shown)]
    return [paired(row) if part in generating else row for row, part in zip(answered, parts, strict=True)], facts
