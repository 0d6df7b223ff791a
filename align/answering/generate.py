"""Generate responses with a loaded model: batched, left-padded, longest prompts first; text-only
and image rows together.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from align.answering.answer import Answer, Unanswered
from align.answering.sampling import processors
from align.answering.thought_budget import Counted, ThoughtBudget
from align.answering.thoughts import Hidden, marks_of
from align.batches.padding import pad
from align.batches.rendered import Rendered
from align.batches.rendering import Renderer
from align.errors import BadRow
from align.fast.seen_images import SeenImages
from align.models.loading import Loaded, ModelSource
from align.rows import Row
from align.settings import Generation

Drawing = Callable[[list[str], Any], Sequence[Any]]
"""(row ids of a batch, device) -> processors of its logits."""


def load_on(device: str, source: ModelSource) -> Loaded:
    """Load a model on a device for generation. Raises UserError.

    An adapter is merged into float32 weights, which saves its matrix products at every token; 16-bit weights
    are not merged, because the sum would be rounded.
    """
    # bitsandbytes puts a quantized model on the current device itself, and does not allow moving an 8-bit model.
    with torch.cuda.device(device) if device != "cpu" else contextlib.nullcontext():
        loaded = source.load()
        if not getattr(loaded.model, "is_quantized", False):
            loaded.model.to(device)
            if hasattr(loaded.model, "peft_config") and loaded.model.dtype == torch.float32:
                loaded.model.merge_adapter()
    return loaded


@dataclass(frozen=True)
class Ordered:
    """Rows in the order of generation."""

    rows: list[Row]
    lengths: dict[str, int]
    """{row id: tokens of its prompt}; empty for an unknown family."""
    unusable: list[Unanswered]
    """Rows that the model cannot process; the other rows continue."""


def longest_first(renderer: Renderer, rows: Sequence[Row], positions: int | None = None) -> Ordered:
    """Sort rows by the length of their prompts (stable), and separate unusable rows. Raises UserError.

    With this order, a lack of memory shows in the first batch, and batches need little padding. Rows of an
    unknown family are generated one by one and keep their order. `positions` is the model's maximum
    sequence length.
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


@dataclass(frozen=True)
class Written:
    """What a model wrote for a row."""

    rendered: Rendered
    """The prompt as the model read it."""
    tokens: list[int]
    """The written tokens, the end of turn included if the model wrote it."""
    finished: bool
    """Whether the model ended its turn; otherwise the response is cut at the maximum length."""
    seconds: float
    """Its share of its batch's time."""
    thought_cut: bool = False
    """Whether the budget of its thoughts ended a thought."""


def generate(
    model: Any,
    renderer: Renderer,
    rows: Sequence[Row],
    settings: Generation,
    seen: SeenImages | None = None,
    hook: Drawing | None = None,
) -> Iterator[Answer | Unanswered]:
    """Generate responses batch by batch, longest prompts first; identify them by row id. `seen` caches image features.

    `hook` (row ids, device) gives processors of a batch's logits that come before those of sampling. Raises UserError.
    """
    hidden = hidden_thoughts(renderer, settings)
    sampling = partial(processors, settings)
    budget = thought_budget(renderer, settings)

    def drawing(row_ids: list[str], device: Any) -> LogitsProcessorList:
        return LogitsProcessorList([*(hook(row_ids, device) if hook else ()), *sampling(row_ids, device)])

    for written in write(model, renderer, rows, settings, drawing, seen, budget):
        yield written if isinstance(written, Unanswered) else _answer(written, renderer, hidden)


@torch.no_grad()
def write(
    model: Any,
    renderer: Renderer,
    rows: Sequence[Row],
    settings: Generation,
    drawing: Callable[[list[str], Any], LogitsProcessorList],
    seen: SeenImages | None = None,
    budget: ThoughtBudget | None = None,
) -> Iterator[Written | Unanswered]:
    """The tokens that a model writes for rows, batch by batch, longest prompts first.

    `drawing` (row ids, device) gives the processors of a batch's logits; `budget` limits thoughts. Raises UserError.
    """
    was_training = model.training
    model.eval()
    ends = end_of_turn_ids(model, renderer)
    # transformers takes unset options from the model's own generation_config (Qwen2-VL's has
    # do_sample), so it is replaced. Sampling is also greedy here: over logits with noise
    # (align/answering/sampling.py).
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=ends,
        pad_token_id=renderer.pad_token_id,
    )
    most_new = settings.max_new_tokens if budget is None else budget.room
    own, model.generation_config = model.generation_config, config
    try:
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        ordered = longest_first(renderer, rows, positions)
        yield from ordered.unusable
        # It is unknown how to batch the outputs of an unknown family's processor.
        size = settings.batch_size if renderer.family.batches else 1
        for start in range(0, len(ordered.rows), size):
            chunk = ordered.rows[start : start + size]
            begun = time.monotonic()
            try:
                rendered = [renderer.render(row) for row in chunk]
            except BadRow as error:  # a row of an unknown family, in a batch of its own
                if len(chunk) > 1:
                    raise
                yield Unanswered(chunk[0].id, str(error), unusable=True)
                continue
            # The model's context limits each row's new tokens, independent of the other rows in the batch.
            room = [min(most_new, (positions or math.inf) - len(row.prompt_ids)) for row in rendered]
            config.max_new_tokens = int(max(room))
            drawn = drawing([row.id for row in chunk], model.device)
            counted = budget.counted(len(chunk)) if budget is not None else None
            with seen.shown(rendered) if seen is not None else contextlib.nullcontext():
                answered = _generated(model, rendered, config, drawn, counted)
            seconds = (time.monotonic() - begun) / len(chunk)
            for i, (row, tokens, most) in enumerate(zip(rendered, answered, room, strict=True)):
                count = counted.rows[i] if counted else None
                kept = tokens[: int(most)] if count is None else tokens[: min(int(most), count.length)]
                yield replace(_written(row, kept, ends, seconds), thought_cut=count is not None and count.cut)
    finally:
        model.generation_config = own
        model.train(was_training)


def _generated(
    model: Any,
    rendered: Sequence[Rendered],
    config: GenerationConfig,
    drawn: LogitsProcessorList,
    counted: Counted | None,
) -> list[list[int]]:
    """The new tokens of a batch, padded on the right to one length."""
    batch = pad(rendered, int(config.pad_token_id), left=True)
    del batch["labels"]
    batch = {key: value.to(model.device) for key, value in batch.items()}
    if counted is not None:
        drawn.append(counted.forcing)
    stops = StoppingCriteriaList([counted.counting] if counted is not None else [])
    generated = model.generate(**batch, generation_config=config, logits_processor=drawn, stopping_criteria=stops)
    new: list[list[int]] = generated[:, batch["input_ids"].shape[1] :].tolist()
    return new


def _written(row: Rendered, tokens: list[int], ends: list[int], seconds: float) -> Written:
    length = next((i for i, token in enumerate(tokens) if token in ends), None)
    return Written(row, tokens if length is None else tokens[: length + 1], length is not None, seconds)


def hidden_thoughts(renderer: Renderer, settings: Generation) -> Hidden:
    """The marks of thoughts that the model's decoded text does not show. Raises UserError."""
    marks = marks_of(settings.thought_marks, "generation.thought_marks")
    return Hidden.of(renderer.processor.tokenizer, renderer.prompt_text(Row("any", "any")), marks)


def thought_budget(renderer: Renderer, settings: Generation) -> ThoughtBudget | None:
    """The limit of thoughts; None without one. Raises UserError for a budget that the model's tokenizer cannot keep."""
    marks = marks_of(settings.thought_marks, "generation.thought_marks")
    return ThoughtBudget.of(settings, marks, hidden_thoughts(renderer, settings), renderer.processor.tokenizer)


def end_of_turn_ids(model: Any, renderer: Renderer) -> list[int]:
    """Ids of tokens that end a response: the family's end of turn, and those in the model's own configuration."""
    tokenizer = renderer.processor.tokenizer
    declared = getattr(model.generation_config, "eos_token_id", None)
    ids = declared if isinstance(declared, list) else [declared]
    ids = [
        tokenizer.convert_tokens_to_ids(renderer.end_of_turn),
        tokenizer.eos_token_id,
        *ids,
    ]
    return sorted({token for token in ids if token is not None})


def _answer(written: Written, renderer: Renderer, hidden: Hidden) -> Answer:
    kept = written.tokens[:-1] if written.finished else written.tokens
    response = hidden.text(renderer.processor.tokenizer, kept)
    reason = "stop" if written.finished else "length"
    read, cut = len(written.rendered.prompt_ids), written.thought_cut
    return Answer(
        written.rendered.id, response, reason, len(kept), written.seconds, thought_cut=cut, prompt_tokens=read
    )
