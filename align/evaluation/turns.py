"""Conversations that the evaluated model takes part in: a turn is asked after the turns before it are answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from align.errors import UserError
from align.rows import Row, Turn


def waves(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows in the order in which they can be asked: first turns, second turns, ... Raises UserError.

    Without conversations it is one wave.
    """
    depth: dict[str, int] = {}
    for row in rows:
        if row.follows is not None and row.follows not in depth:
            raise UserError(
                f"row {row.id} follows row {row.follows}, which is not before it in this evaluation; select whole "
                "conversations"
            )
        depth[row.id] = 0 if row.follows is None else depth[row.follows] + 1
    return [[row for row in rows if depth[row.id] == wave] for wave in range(max(depth.values(), default=0) + 1)]


def continued(row: Row, before: Mapping[str, Row], responses: Mapping[str, str]) -> Row:
    """A row with the turn that it follows, and the response to it, as its history.

    `before` are the rows of earlier waves, with their own histories; `responses` those to them.
    """
    if row.follows is None:
        return row
    asked = before[row.follows]
    shown = len(asked.images) - sum(len(turn.places) for turn in asked.history)
    request = Turn("user", asked.prompt, asked.places or (0,) * shown)
    response = Turn("assistant", responses[row.follows])
    return replace(row, history=(*asked.history, request, response), images=(*asked.images, *row.images))
