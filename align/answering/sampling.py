"""Drawing tokens so that an answer depends on its row and the seed alone, not on the rows beside it in the batch.

The most probable token after independent Gumbel noise on the logits is a draw from their softmax (Gumbel, 1954; Maddison et al. 2014,
"A* sampling"). So decoding stays greedy, and each row's noise comes from a generator of its own: a killed evaluation that goes on
in other batches gives the answers that it would have given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from align.settings import Generation


def processors(generation: Generation, row_ids: Sequence[str], device: Any) -> LogitsProcessorList:
    """What is done to the logits of a batch of these rows before the highest is taken; nothing where answers are greedy."""
    if not generation.do_sample:
        return LogitsProcessorList()
    return LogitsProcessorList(
        [
            TemperatureLogitsWarper(float(generation.temperature)),
            TopPLogitsWarper(float(generation.top_p)),
            RowNoise(generation.seed, row_ids, device),
        ]
    )


class RowNoise(LogitsProcessor):
    """Adds Gumbel noise to the logits of each row, from a generator that is seeded by the seed and the row's id."""

    def __init__(self, seed: int, row_ids: Sequence[str], device: Any):
        self._generators = [torch.Generator(device).manual_seed(_seed(seed, row_id)) for row_id in row_ids]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` (batch, vocabulary) -> the same with noise, in double precision: single would cut off rare tokens."""
        noise = torch.empty_like(scores, dtype=torch.float64)
        for one, generator in zip(noise, self._generators, strict=True):
            one.exponential_(generator=generator)
        return scores.double() - noise.log()  # minus the logarithm of an exponential variable is a Gumbel one


def _seed(seed: int, row_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {row_id}".encode("utf-8", "surrogatepass")).digest()[:8])
