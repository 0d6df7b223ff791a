"""Sample responses from the policy: the same rendering, batching and noise as in evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from transformers import (
    LogitsProcessorList,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from align.answering.answer import Unanswered
from align.answering.generate import Written, write
from align.answering.sampling import RowNoise
from align.batches.rendering import Renderer
from align.errors import UserError
from align.rows import Row
from align.settings import Generation


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn."""

    temperature: float
    top_p: float
    top_k: int
    """0: all tokens."""
    max_completion_length: int
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Request:
    """One response to sample."""

    number: int
    """The row's number."""
    sample: int
    row: Row

    def named(self, round_number: int) -> str:
        """What the response's noise depends on, in addition to the seed: not on the batch or the process."""
        return f"{round_number} {self.sample} {self.row.id}"


def never_sampled(renderer: Renderer) -> list[int]:
    """Tokens that a policy must not write: placeholders of images, which would shift the image
    features in the training pass, and padding.
    """
    tokenizer = renderer.processor.tokenizer
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(renderer.end_of_turn)}
    ids = {*tokenizer.convert_tokens_to_ids(renderer.placeholders), renderer.pad_token_id}
    return sorted(ids - ends - {None})


def sample(
    model: Any, renderer: Renderer, requests: Sequence[Request], sampling: Sampling, round_number: int
) -> Iterator[tuple[Request, Written]]:
    """(Request, response) in the order in which they are written. Raises UserError."""
    named = {request.named(round_number): request for request in requests}
    rows = [replace(request.row, id=name) for name, request in named.items()]
    generation = Generation(max_new_tokens=sampling.max_completion_length, batch_size=sampling.batch_size)
    drawing = partial(_drawing, sampling, never_sampled(renderer))
    for written in write(model, renderer, rows, generation, drawing):
        if isinstance(written, Unanswered):
            raise UserError(f"row {named[written.id].row.id}: no response can be sampled: {written.reason}")
        yield named[written.rendered.id], written


def _drawing(sampling: Sampling, banned: list[int], names: list[str], device: Any) -> LogitsProcessorList:
    processors = LogitsProcessorList([TemperatureLogitsWarper(float(sampling.temperature))])
    if banned:
        processors.append(SuppressTokensLogitsProcessor(banned, device=device))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(float(sampling.top_p)))
    processors.append(RowNoise(sampling.seed, names, device))
    return processors
