"""Pairs that a reward model is not trained on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from align.rows import Row


@dataclass(frozen=True)
class Pair:
    """The rewards of a pair."""

    row: Row
    chosen: float
    rejected: float

    @property
    def right(self) -> bool:
        """Whether the chosen answer has the higher reward; equal rewards are wrong."""
        return self.chosen > self.rejected


def split(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """(Rows to train on, held-out rows): a sample of items, so that rows of one item stay together.

    Rows with the same image, or without images the same request, are one item too.
    """
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.item or row.images or "\n".join(row.requests).strip().lower(), []).append(row)
    keys = list(groups)
    random.Random(f"held out {seed}").shuffle(keys)
    wanted, held = round(share * len(rows)), set[str]()
    for key in keys:
        if len(held) >= wanted:
            break
        held |= {row.id for row in groups[key]}
    return [row for row in rows if row.id not in held], [row for row in rows if row.id in held]
