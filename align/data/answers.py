"""Answers that a source lacks: for which rows one is asked for, what is asked, and where the answer goes."""

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
"""Rows -> (an answer to each, whose they are: a fact to record)"""


def check_settings(name: str, part: Part) -> None:
    """Raises UserError for anything but null and `generate`."""
    for field in FIELDS:
        if getattr(part, field) not in (None, GENERATE):
            raise UserError(
                f"data.{name}.{field}={getattr(part, field)}: expected generate, or null to take answers from the source alone"
            )


def paired(row: Row) -> Row:
    """The row with its answers under both names: a safe answer is the one preferred, a harmful one the one that is not.

    Only where it lacks them. What a benign row rejects need not be harmful, so that it is left as it is.
    """
    row = replace(row, response=_first(row.response, row.chosen), chosen=_first(row.chosen, row.response))
    if row.role != "harmful":
        return row
    harmful, rejected = row.harmful_response, row.rejected
    return replace(row, harmful_response=_first(harmful, rejected), rejected=_first(rejected, harmful))


def _first(answer: str | None, other: str | None) -> str | None:
    """An answer, or the other where there is none; a blank one is no reason to take the other."""
    return other if answer is None else answer


def lacking(row: Row, part: Part) -> list[str]:
    """The answers that a row is to get from a model."""
    row = paired(row)
    return [
        field
        for field in FIELDS
        if getattr(part, field) == GENERATE
        and getattr(row, field) is None
        and (field == "response" or row.role == "harmful")
    ]


def check_rows(name: str, rows: Sequence[Row], part: Part) -> None:
    """Raises UserError where a row would get one and the same answer as its safe and as its harmful one."""
    both = [row.id for row in rows if len(lacking(row, part)) > 1]
    if both:
        raise UserError(
            f"data.{name}: {len(both)} harmful rows lack both `response` and `harmful_response`, and one model would give the same "
            f"answer for either, first: {', '.join(both[:5])}; put one of them into the source, or generate one alone"
        )


def with_answers(
    shown: Sequence[Row], own: Sequence[Row], parts: Sequence[str], settings: dict[str, Part], ask: Ask
) -> tuple[list[Row], list[str]]:
    """Rows as they are shown, with the answers that they lacked, and the facts to record.

    `own` are the same rows before a view changed them: arms that show a row differently get the same answer to it. `parts` names
    the part of each.
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
