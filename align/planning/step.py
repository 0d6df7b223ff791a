"""Computation of one optimizer step: number and length of sequences, images, reference model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from align.batches.layout import worth_it
from align.batches.parts import ANSWER_OF
from align.config.merge import Composed
from align.config.registry import METHODS, REWARD_MODEL, resolve
from align.config.values import to_dict
from align.data.views import READS_IMAGES
from align.errors import UserError
from align.methods.sampler import InProportion, WholeBatches, steps
from align.planning.images import ImageTokens
from align.run_folder import RunFolder
from align.settings import PlanSettings, RunConfig


@dataclass(frozen=True)
class Pass:
    """Sequences of a step, over all GPUs and all accumulated passes."""

    sequences: float
    length: int
    """Tokens of each sequence in the layout; all are assumed to have the greatest length."""
    images: float
    supervised: float
    """Positions that the output head processes (align/fast/supervised_head.py)."""
    logits_again: bool = True
    """Whether the head recomputes its logits in the backward pass (align/fast/frozen_head.py).

    It does on a GPU, and on a CPU if it is trained. Plans are for GPUs.
    """


@dataclass(frozen=True)
class Step:
    """One optimizer step."""

    rows: int
    image: ImageTokens
    policy: Pass
    reference: Pass | None
    divergence: float
    """Positions with a comparison of two distributions over the vocabulary (unlearning's KL)."""


@dataclass(frozen=True)
class Rows:
    """Number of a run's rows by role, and how many of them have an image in their view."""

    count: Counter[str]
    with_images: Counter[str]

    @property
    def total(self) -> int:
        """Number of all rows."""
        return self.count.total()

    def share_with_images(self, role: str | None = None) -> float:
        """Share of rows with images, for one role or for all rows."""
        count = self.total if role is None else self.count[role]
        return (self.with_images.total() if role is None else self.with_images[role]) / count if count else 0.0


SAMPLE = 64
"""Rows of a part that are read to find its role, when `rows` gives their number."""


def rows_of(config: RunConfig) -> Rows:
    """Rows from the configuration, or else from the data. Raises UserError if neither gives them.

    A part with `rows` is assumed to have that many; in views with images each row is assumed to
    have one. If the role is not set, a few rows are read for the role and the share with images.
    """
    if not config.data:
        raise UserError(
            f"recipe {config.recipe}: no data. Name a suite, or give data.<part>.rows= and data.<part>.role="
        )
    rows = Rows(Counter(), Counter())
    for name, part in config.data.items():
        role, with_images = (part.role, 1.0) if part.rows and part.role else _sampled(config, name)
        if not (part.rows and role):
            return _read(config)
        rows.count[role] += part.rows
        if (part.view or config.view) in READS_IMAGES:
            rows.with_images[role] += round(part.rows * (1 - part.caption_share) * with_images)
    return rows


def _sampled(config: RunConfig, name: str) -> tuple[str | None, float]:
    """-> (role of a part's first rows, None if they differ; share of them with an image)."""
    from align.data.assembly import read_part

    part = config.data[name]
    if not part.rows:
        return None, 0.0
    few = replace(config, data={name: replace(part, rows=min(part.rows, SAMPLE))})
    try:
        rows = read_part(few, name)[0]
    except UserError:
        return None, 0.0  # reading the whole part reports the error
    roles = {row.role for row in rows}
    return (roles.pop() if len(roles) == 1 else None), sum(bool(row.images) for row in rows) / len(rows)


_ROWS: dict[str, Rows] = {}
"""{data settings: rows}, because many runs of a sweep share their data."""


def _read(config: RunConfig) -> Rows:
    values = to_dict(config)
    key = json.dumps([values[name] for name in ("data", "data_root", "view", "track", "allow_label_conflict")])
    if key not in _ROWS:
        _ROWS[key] = _counted(config)
    return _ROWS[key]


def _counted(config: RunConfig) -> Rows:
    from align.data.assembly import training_data

    try:
        data = training_data(config).rows
    except UserError as error:
        unknown = [name for name, part in config.data.items() if not (part.rows and part.role)]
        raise UserError(
            f"number and role of the rows of data.{unknown[0]} are not set and cannot be read: {error}. For a plan, "
            f"give data.{unknown[0]}.rows=<number> data.{unknown[0]}.role=harmful|benign"
        ) from error
    return Rows(Counter(row.role for row in data), Counter(row.role for row in data if row.images))


@lru_cache
def method_of(name: str) -> Any:
    """The class of a method. Raises UserError."""
    return resolve("method", name, METHODS)


def arguments_of(composed: Composed, processes: int) -> Any:
    """The run's training arguments on `processes` GPUs.

    Raises UserError if the batch cannot be divided by them.
    """
    from align.methods.arguments import training_arguments

    config, method = composed.config, method_of(composed.config.method)
    if "generation_batch_size" in method.config_class.__dataclass_fields__:
        # trl's GRPO would compute it from the number of processes of this command.
        given = {"generation_batch_size": config.global_batch_size} | config.train
        composed = replace(composed, config=replace(config, train=given))
    return training_arguments(composed, method, RunFolder(Path("planned")), processes)


def checkpoints_activations(config: RunConfig) -> bool:
    """Whether layers are recomputed in the backward pass: as set, or trl's default."""
    default = method_of(config.method).config_class.__dataclass_fields__["gradient_checkpointing"].default
    return bool(config.train.get("gradient_checkpointing", config.train.get("activation_checkpointing", default)))


def steps_of(composed: Composed, rows: Rows, arguments: Any) -> int:
    """Number of optimizer steps of the run, computed as in training."""
    config = composed.config
    size = config.global_batch_size
    if not hasattr(arguments, "proportion"):
        held_out = round(getattr(arguments, "held_out", 0.0) * rows.total)
        return steps(WholeBatches(rows.total - held_out, size, 0, int), arguments)
    absent = [role for role in ("harmful", "benign") if not rows.count[role]]
    if absent:
        raise UserError(
            f"method={config.method} needs harmful and benign rows, but no row is {absent[0]}. Add a part with that "
            "role."
        )
    strata = [range(rows.count[role]) for role in ("harmful", "benign")]
    return steps(InProportion(strata, arguments.proportion, size, 0, int), arguments)


def step_of(
    composed: Composed,
    rows: Rows,
    arguments: Any,
    image: ImageTokens,
    assumed: PlanSettings,
    layout: str | None,
    width: int,
    reference_encodes: bool = True,
) -> Step:
    """One optimizer step of the run. Raises UserError for rows longer than train.max_length.

    `layout`: as for collators (align/fast/model_inputs.py); `width`: the model's hidden size;
    `reference_encodes`: whether the reference model encodes images again.
    """
    config, method = composed.config, method_of(composed.config.method)
    answer = assumed.answer_tokens
    length = assumed.prompt_tokens + answer + (image.tokens if rows.share_with_images() else 0)
    if multiple := arguments.pad_to_multiple_of:
        length = -(-length // multiple) * multiple
    if arguments.max_length is not None and length > arguments.max_length:
        raise UserError(
            f"a row of {length} tokens (prompt {assumed.prompt_tokens}, image {image.tokens}, response {answer}) is "
            f"longer than train.max_length={arguments.max_length}, and the run would reject it. Give a higher "
            "train.max_length=, or set the sizes of rows with plan.prompt_tokens, plan.answer_tokens, plan.image."
        )
    size = config.global_batch_size
    reference, divergence = None, 0.0
    if hasattr(arguments, "proportion"):
        parts = _parts(rows, arguments.proportion, size)
        policy = _computed(parts, length, answer, layout, width)
        asked = ANSWER_OF[method.reference_part][0]
        reference = _computed(
            [replace(of, answers=1) for of in parts if of.role == asked], length, answer, layout, width
        )
        divergence = reference.supervised if config.method == "unlearning" else 0.0
    else:
        answers = len(method.collator(None, arguments).answers)
        policy = _computed([Asked("", size, answers, rows.share_with_images())], length, answer, layout, width)
        if config.method == REWARD_MODEL:
            policy = replace(policy, supervised=0)  # a scalar head instead of the output head
        reference = _times(policy, method.passes_without_gradients) if method.needs_reference else None
    if reference and not reference_encodes:
        reference = replace(reference, images=0)
    return Step(size, image, policy, reference, divergence)


@dataclass(frozen=True)
class Asked:
    """Rows of a step, and the number of responses computed for each."""

    role: str
    rows: float
    answers: int
    with_images: float
    """Share of rows with an image in their view."""


def _times(of: Pass, times: int) -> Pass:
    """The same computation several times in a step."""
    return replace(of, sequences=of.sequences * times, images=of.images * times, supervised=of.supervised * times)


def _parts(rows: Rows, proportion: list[int], size: int) -> list[Asked]:
    """Rows of an unlearning step."""
    answers = Counter(role for role, _ in ANSWER_OF.values())
    return [
        Asked(role, size * of / sum(proportion), answers[role], rows.share_with_images(role))
        for role, of in zip(("harmful", "benign"), proportion, strict=True)
    ]


def _computed(asked: Sequence[Asked], length: int, answer: int, layout: str | None, width: int) -> Pass:
    """Pass for padded rows, or for prompts shared by their responses; `auto` takes the cheaper one.

    `length` is the length of a padded row, `answer` of a response. Packing depends on different row
    lengths, which a plan does not know.
    """
    answers = sum(of.rows * of.answers for of in asked)
    images = sum(of.rows * of.with_images * (of.answers if layout is None else 1) for of in asked)
    padded = Pass(answers, length, images, answers * answer)
    most = max(of.answers for of in asked)
    shared = replace(padded, sequences=sum(of.rows for of in asked), length=length - answer + most * (answer - 1))
    if layout == "auto":
        saves = worth_it((shared.sequences, shared.length), (padded.sequences, padded.length), width)
        return shared if saves else padded
    return shared if layout in ("shared_prefix", "packed") else padded
