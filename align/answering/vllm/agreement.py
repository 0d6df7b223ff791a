"""Whether vLLM's model is the same as transformers': log-probabilities of the same tokens.

transformers responds to a few rows first and is freed. vLLM then scores those responses as prompts.
The comparison finds another template, image or beginning of the sequence, and adapters that have no
effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from align.answering.generate import Written, end_of_turn_ids, load_on, write
from align.batches.padding import pad
from align.batches.rendering import Renderer
from align.data.images import encode_png
from align.errors import UserError
from align.models.loading import ModelSource
from align.rows import Row
from align.settings import Generation

TOLERANCES = {torch.float32: 1e-4}
"""Largest accepted difference of a token's log-probability, by dtype."""
TOLERANCE = 0.1
"""For 16-bit types."""
SIZES = ((64, 64), (90, 51), (333, 500), (640, 480))
"""Sizes of images that are added if the rows have none."""
QUESTION = "Describe the image."


@dataclass(frozen=True)
class Scored:
    """A row with transformers' response to it."""

    row: Row
    tokens: list[int]
    log_probs: list[float]
    """transformers' log-probability of each token."""


@dataclass(frozen=True)
class Reference:
    """What transformers' model wrote for a few rows, and what vLLM needs to know of it."""

    scored: list[Scored]
    ends: list[int]
    """Ids of tokens that end a response."""
    dtype: torch.dtype


@dataclass(frozen=True)
class Agreement:
    """How close vLLM's log-probabilities are to transformers'."""

    rows: int
    with_images: int
    tokens: int
    largest: float
    """The largest difference of a token's log-probability."""
    mean: float
    identical: int
    """Rows to which both wrote the same tokens."""
    tolerance: float

    def __str__(self) -> str:
        return (
            f"vLLM agrees with transformers on {self.rows} rows, {self.with_images} with images: log-probabilities of "
            f"{self.tokens} tokens differ by at most {self.largest:.1e} (mean {self.mean:.1e}, accepted "
            f"{self.tolerance:g}), and {self.identical} responses are identical"
        )


def rows_to_check(rows: Sequence[Row], count: int) -> list[Row]:
    """Up to `count` rows, half with images; images of several sizes are added if the rows have none."""
    half = -(-count // 2)
    with_images, texts = ([row for row in rows if bool(row.images) == shown] for shown in (True, False))
    if not with_images:
        noise = np.random.default_rng(0)
        for width, height in SIZES:
            pixels = noise.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
            image = encode_png(Image.fromarray(pixels).resize((width, height)))
            with_images.append(Row(f"vllm check {width}x{height}", QUESTION, images=(image,)))
    chosen = with_images[: max(half, count - len(texts))]
    return chosen + texts[: count - len(chosen)]


def reference_of(source: ModelSource, device: str, rows: Sequence[Row], generation: Generation) -> Reference:
    """Load the model with transformers, let it respond to rows, and free it. Raises UserError."""
    loaded = load_on(device, source)
    model, renderer = loaded.model, loaded.renderer
    greedy = replace(generation, do_sample=False)
    written = [one for one in write(model, renderer, rows, greedy, lambda *_: []) if isinstance(one, Written)]
    of = {row.id: row for row in rows}
    # A written placeholder of an image would be taken for an image when the response is scored.
    placeholders = set(renderer.processor.tokenizer.convert_tokens_to_ids(renderer.placeholders))
    written = [one for one in written if one.tokens and not placeholders & set(one.tokens)]
    scored = [Scored(of[one.rendered.id], one.tokens, _log_probs(model, renderer, one)) for one in written]
    return Reference(scored, end_of_turn_ids(model, renderer), model.dtype)


@torch.no_grad()
def _log_probs(model: Any, renderer: Renderer, written: Written) -> list[float]:
    """The log-probability of each written token."""
    batch = pad([replace(written.rendered, answer_ids=written.tokens)], renderer.pad_token_id)
    del batch["labels"]
    logits = model(**{key: value.to(model.device) for key, value in batch.items()}).logits[0].float()
    tokens = torch.tensor(written.tokens, device=logits.device)
    chosen = torch.log_softmax(logits[-len(tokens) - 1 : -1], dim=-1).gather(-1, tokens[:, None])
    return chosen[:, 0].tolist()


def agreement_of(
    reference: Reference,
    scores: Sequence[Sequence[float]],
    tokens: Sequence[Sequence[int]],
    tolerance: float | None,
) -> Agreement:
    """Compare vLLM's log-probabilities of each response, and its own responses. Raises UserError beyond the tolerance.

    A response that fills the context is scored in its first tokens.
    """
    accepted = TOLERANCES.get(reference.dtype, TOLERANCE) if tolerance is None else tolerance
    gaps = [
        [abs(one - other) for one, other in zip(scored.log_probs[: len(of_vllm)], of_vllm, strict=True)]
        for scored, of_vllm in zip(reference.scored, scores, strict=True)
    ]
    every = [gap for of_row in gaps for gap in of_row]
    if not every:
        raise UserError(
            "generation.engine=vllm: transformers wrote no token for the compared rows, so vLLM cannot be compared; "
            "use generation.engine=transformers"
        )
    largest = max(every)
    identical = sum(list(own) == scored.tokens for scored, own in zip(reference.scored, tokens, strict=True))
    images = sum(bool(scored.row.images) for scored in reference.scored)
    found = Agreement(len(gaps), images, len(every), largest, sum(every) / len(every), identical, accepted)
    if not largest <= accepted:  # rejects NaN too
        worst = max(range(len(gaps)), key=lambda i: max(gaps[i], default=0.0))
        raise UserError(
            f"generation.engine=vllm: vLLM's model differs from transformers': the log-probability of a token differs by "
            f"{largest:.2g} in row {reference.scored[worst].row.id}, more than {accepted:g}. No response was generated. "
            "Use generation.engine=transformers, or accept the difference with generation.vllm.tolerance="
        )
    return found
