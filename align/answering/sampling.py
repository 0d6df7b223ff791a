"""Sampling where a response depends only on its row and the seed, not on the other rows in the batch.

With independent Gumbel noise on the logits, the argmax is a sample from their softmax (Gumbel, 1954;
Maddison et al. 2014, "A* sampling"). So decoding stays greedy, and each row has its own noise generator:
an interrupted evaluation that resumes with other batches gives the same responses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from align.settings import Generation


def processors(generation: Generation, row_ids: Sequence[str], device: Any) -> LogitsProcessorList:
    """Processors for the logits of a batch of these rows before the argmax; none for greedy decoding."""
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
    """Adds Gumbel noise to the logits of each row, from a generator seeded with the seed and the row's id."""

    def __init__(self, seed: int, row_ids: Sequence[str], device: Any):
        self._generators = [torch.Generator(device).manual_seed(seed_of(seed, row_id)) for row_id in row_ids]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Add noise to `scores` (batch, vocabulary), in double precision: single precision would
        exclude rare tokens.
        """
        noise = torch.empty_like(scores, dtype=torch.float64)
        for one, generator in zip(noise, self._generators, strict=True):
            one.exponential_(generator=generator)
        return scores.double() - noise.log()  # -log of an exponential variable has a Gumbel distribution


def seed_of(seed: int, row_id: str) -> int:
    """A row's own seed, of 64 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed} {row_id}".encode("utf-8", "surrogatepass")).digest()[:8])
