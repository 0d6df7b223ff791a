"""Where batched answers part from those given one by one, and how near the two most probable tokens
were to each other there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from align.answering.generate import write
from align.answering.sampling import processors
from align.batches.padding import pad
from align.rows import Row
from align.settings import Generation


@dataclass
class Divergence:
    """The first token that differs between two answers to a row."""

    row: str
    step: int
    gap: float
    """Highest minus second highest logit there, of a forward pass over the row alone and the tokens
    that the answers share.
    """


def tokens_of(it, rows: Sequence[Row], generation: Generation) -> dict[str, list[int]]:
    """{row id: the tokens of its answer}, its end of turn included; texts might hide a special token."""
    written = write(it.model, it.renderer, rows, generation, partial(processors, generation))
    found = {one.rendered.id: one.tokens for one in written}
    assert sorted(found) == sorted(row.id for row in rows)
    return found


def divergences(it, rows: Sequence[Row], one: dict[str, list[int]], other: dict[str, list[int]]) -> list[Divergence]:
    """Every row whose two answers differ."""
    found = []
    for row in rows:
        a, b = one[row.id], other[row.id]
        if a != b:
            step = next(i for i in range(max(len(a), len(b))) if a[i : i + 1] != b[i : i + 1])
            found.append(Divergence(row.id, step, gap(it, row, a[:step])))
    return found


@torch.no_grad()
def gap(it, row: Row, prefix: list[int]) -> float:
    """Highest minus second highest logit behind a row's prompt and the beginning of an answer, in
    one pass without a cache.
    """
    batch = pad([replace(it.renderer.render(row), answer_ids=prefix)], it.renderer.pad_token_id)
    del batch["labels"]
    first, second = it.model.eval()(**batch, use_cache=False).logits[0, -1].float().topk(2).values.tolist()
    return first - second
