"""Answers of a loaded model: batched, left padded, the longest prompts first; text-only and image rows in one batch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from align.answering.answer import Answer, Unanswered
from align.answering.sampling import processors
from align.answering.thoughts import NOTHING_HIDDEN, Hidden, marks_of
from align.batches.padding import pad
from align.batches.rendering import Renderer
from align.errors import BadRow
from align.fast.seen_images import SeenImages
from align.models.loading import Loaded, ModelSource
from align.rows import Row
from align.settings import Generation


def load_on(device: str, source: ModelSource) -> Loaded:
    """A model on its device, to be asked. Raises UserError.

    An adapter is added to float32 weights, which saves its products at every token; in 16 bits the sum would be rounded.
    """
    # bitsandbytes puts a quantised model on the current device itself, and refuses to have an 8-bit one moved.
    with torch.cuda.device(device) if device != "cpu" else contextlib.nullcontext():
        loaded = source.load()
        if not getattr(loaded.model, "is_quantized", False):
            loaded.model.to(device)
            if hasattr(loaded.model, "peft_config") and loaded.model.dtype == torch.float32:
                loaded.model.merge_adapter()
    return loaded


@dataclass(frozen=True)
class Ordered:
    """Rows in the order in which they are answered."""

    rows: list[Row]
    lengths: dict[str, int]
    """{row id: tokens of its prompt}; nothing of a family that is not known."""
    unusable: list[Unanswered]
    """Rows that the model cannot be asked: the others go on."""


def longest_first(renderer: Renderer, rows: Sequence[Row], positions: int | None = None) -> Ordered:
    """Rows by the length of their prompts, equal ones as they came, and those that cannot be asked. Raises UserError.

    If the memory does not suffice it shows in the first batch, and rows of one batch need little padding. Rows of a family that is not
    known, which are answered one by one, stay as they are. `positions` is the longest sequence that the model was made for.
    """
    if not renderer.family.known:
        return Ordered(list(rows), {}, [])
    lengths: dict[str, int] = {}
    unusable = []
    for row in rows:
        try:
            length, _ = renderer.measure(row, [])
        except BadRow as error:
            unusable.append(Unanswered(row.id, str(error), unusable=True))
            continue
        if positions is not None and length >= positions:
            why = f"its prompt has {length:,} tokens, the model's context is {positions:,}"
            unusable.append(Unanswered(row.id, why, unusable=True))
        else:
            lengths[row.id] = length
    good = [row for row in rows if row.id in lengths]
    return Ordered(sorted(good, key=lambda row: -lengths[row.id]), lengths, unusable)


@torch.no_grad()
def generate(
    model: Any, renderer: Renderer, rows: Sequence[Row], settings: Generation, seen: SeenImages | None = None
) -> Iterator[Answer | Unanswered]:
    """Answers a batch at a time, longest prompts first: to be told apart by their ids. `seen` keeps what the model makes of images.

    Raises UserError.
    """
    was_training = model.training
    model.eval()
    ends, hidden = end_of_turn_ids(model, renderer), hidden_thoughts(renderer, settings)
    # transformers fills what is not set from the model's own generation_config (Qwen2-VL's samples), so that is set aside. Sampling
    # too is greedy here: over logits with noise (align/answering/sampling.py).
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=ends,
        pad_token_id=renderer.pad_token_id,
    )
    own, model.generation_config = model.generation_config, config
    try:
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        ordered = longest_first(renderer, rows, positions)
        yield from ordered.unusable
        # How a processor's outputs are put side by side is known of known families only.
        size = settings.batch_size if renderer.family.known else 1
        for start in range(0, len(ordered.rows), size):
            chunk = ordered.rows[start : start + size]
            begun = time.monotonic()
            try:
                rendered = [renderer.render(row) for row in chunk]
            except BadRow as error:  # of a family that is not known, whose rows are rendered one by one
                if len(chunk) > 1:
                    raise
                yield Unanswered(chunk[0].id, str(error), unusable=True)
                continue
            # What a row may write is bounded by the model's context, whatever rows are beside it in its batch.
            room = [min(settings.max_new_tokens, (positions or math.inf) - len(row.prompt_ids)) for row in rendered]
            config.max_new_tokens = int(max(room))
            batch = pad(rendered, renderer.pad_token_id, left=True)
            del batch["labels"]
            batch = {key: value.to(model.device) for key, value in batch.items()}
            drawing = processors(settings, [row.id for row in chunk], model.device)
            with seen.shown(rendered) if seen is not None else contextlib.nullcontext():
                generated = model.generate(**batch, generation_config=config, logits_processor=drawing)
            answered = generated[:, batch["input_ids"].shape[1] :].tolist()
            seconds = (time.monotonic() - begun) / len(chunk)
            for row, tokens, most in zip(chunk, answered, room, strict=True):
                yield _answer(row, tokens[: int(most)], ends, renderer, seconds, hidden)
    finally:
        model.generation_config = own
        model.train(was_training)


def hidden_thoughts(renderer: Renderer, settings: Generation) -> Hidden:
    """What of the model's thoughts is not in what it writes. Raises UserError."""
    marks = marks_of(settings.thought_marks, "generation.thought_marks")
    return Hidden.of(renderer.processor.tokenizer, renderer.prompt_text(Row("any", "any")), marks)


def end_of_turn_ids(model: Any, renderer: Renderer) -> list[int]:
    """Tokens that end an answer: the family's end of turn and what the model itself declares."""
    tokenizer = renderer.processor.tokenizer
    declared = getattr(model.generation_config, "eos_token_id", None)
    ids = declared if isinstance(declared, list) else [declared]
    ids = [
        tokenizer.convert_tokens_to_ids(renderer.end_of_turn),
        tokenizer.eos_token_id,
        *ids,
    ]
    return sorted({token for token in ids if token is not None})


def _answer(
    row: Row, tokens: list[int], ends: list[int], renderer: Renderer, seconds: float, hidden: Hidden = NOTHING_HIDDEN
) -> Answer:
    length = next((i for i, token in enumerate(tokens) if token in ends), None)
    kept = tokens if length is None else tokens[:length]
    response = hidden.text(renderer.processor.tokenizer, kept)
    return Answer(row.id, response, "length" if length is None else "stop", len(kept), seconds)
