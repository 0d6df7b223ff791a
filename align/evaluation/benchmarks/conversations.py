"""`conversations`: your own file of conversations (align/data/conversation.py has the forms).

A column `role` says harmful or benign, or `role=` for the whole file; otherwise a row is harmful. `turns=last`: the model
continues the conversation as the file has it. `turns=each`: it takes part in it; every request is
asked after the model's own responses to the requests before it, and every response is judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from align.data.hints import option
from align.data.reading import Read
from align.data.sources.conversations import read_file, row_of
from align.errors import UserError
from align.evaluation.benchmark import Benchmark
from align.rows import ROLES, Row
from align.settings import BenchmarkSettings

WHAT = "benchmark=conversations"


def read(settings: BenchmarkSettings) -> Read:
    """The rows of the file at `path`. Raises UserError with file, row and column."""
    if settings.turns not in ("last", "each"):
        raise UserError(f"{WHAT}: {option(f'turns={settings.turns}')}: expected last or each")
    if settings.columns:
        raise UserError(f"{WHAT}: {option('columns=')} has no effect on conversations; rename the columns in the file")
    file = read_file(WHAT, settings, trained=False)
    rows: list[Row] = []
    for row_id, record, conversation, images in file.found:
        role = record.optional("role") or settings.role or "harmful"
        if role not in ROLES:
            raise UserError(f"{record.where}: `role` is {role!r}, expected {' or '.join(ROLES)}")
        row = replace(
            row_of(conversation, images, row_id, file.name, role),
            category=record.optional("category"),
            cluster=row_id,
            chosen=None,
            rejected=None,
        )
        rows += [row] if settings.turns == "last" else _each(row)
    return Read(rows, file.facts, file.unread_images)


def _each(row: Row) -> Iterator[Row]:
    """A row for each request of a conversation, which follows the one before."""
    system = tuple(turn for turn in row.history if turn.role == "system")
    requests = [turn for turn in row.history if turn.role == "user"]
    asked = [(turn.text, turn.places, len(turn.places)) for turn in requests]
    begun = sum(count for _, _, count in asked)
    asked.append((row.prompt, row.places, len(row.images) - begun))
    shown, before = 0, None
    for number, (text, places, count) in enumerate(asked, start=1):
        turn_id = f"{row.id}-turn{number}"
        yield replace(
            row,
            id=turn_id,
            prompt=text,
            places=places,
            images=row.images[shown : shown + count],
            history=system if before is None else (),
            follows=before,
            response=row.response if number == len(asked) else None,
        )
        shown, before = shown + count, turn_id


CONVERSATIONS = Benchmark("conversations", "as its rows say", read, judges=("vlsbench",), own_file=True)
