"""Build the model, adapter, collator and trl trainer from a run's configuration and rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from accelerate import PartialState
from transformers import PrinterCallback

from align.config.merge import Composed
from align.config.registry import METHODS, resolve
from align.data.assembly import TrainingData
from align.errors import UserError
from align.families import Family
from align.fast.feature_store import feature_store
from align.fast.images_once import ImageReuse, encoders, unchanged
from align.fast.model_inputs import layout_for
from align.fast.reference_store import KeepReference, StoredReference, stored_reference
from align.methods.arguments import training_arguments
from align.methods.distributed import (
    check_launch,
    divides_weights,
    in_step_by_images,
    name_layers,
    sharding,
    world_size,
)
from align.methods.held_out import split
from align.methods.method import RunParts
from align.methods.rollouts.with_vllm import VllmSampler
from align.methods.trainer import to_dataset
from align.models.loading import Loaded, base_of, load, parameters_per_tower
from align.models.quantization import full_towers, restore_full_towers
from align.models.reference import add_frozen_copy, kind_of_reference
from align.models.trainable import (
    choose_trainable,
    freeze_without_images,
    hold_towers_in_float32,
    refuse_short_weights,
)
from align.models.weights import Base
from align.planning.spent import Spending
from align.rewards.build import reward_facts, rewards_of
from align.rows import Row
from align.run_folder import RunFolder
from align.settings import RunConfig
from align.training.callbacks import Clock, LogFile, Preemption, StepFile
from align.training.curve_points import CurvePoints
from align.training.throughput import Throughput

LOG = logging.getLogger(__name__)


@dataclass
class BuiltRun:
    """A trainer that is ready to train, and the facts that are recorded of its run."""

    trainer: Any
    family: Family
    base: Base
    reference: str | None
    """The kind of reference model (align/models/reference.py); None for a method without a
    reference model."""
    layout_facts: list[str]
    preemption: Preemption


def build_run(composed: Composed, data: TrainingData, run: RunFolder, callbacks: Sequence[Any] = ()) -> BuiltRun:
    """Build the model, adapter, collator and the method's trainer. Raises UserError."""
    config = composed.config
    method = resolve("method", config.method, METHODS)
    arguments = training_arguments(composed, method, run, world_size())
    arguments.disable_tqdm = arguments.disable_tqdm or bool(callbacks)  # the caller shows progress itself
    loaded = load(config.model)
    peft_config = choose_trainable(loaded.model, loaded.family, config)
    if sharding() is None:
        refuse_short_weights(loaded.model, config)
    copy = load(config.model).model.requires_grad_(False) if method.needs_reference and config.lora is None else None
    reference = (
        kind_of_reference(config.lora is not None, bool(config.model.adapter)) if method.needs_reference else None
    )
    collator = method.collator(loaded.renderer, arguments)
    layout_facts = _lay_out(collator, loaded, data, config, arguments)
    name_layers(loaded.model)
    stored = _stored_reference(loaded, reference, config, arguments)
    collator.keyed = stored is not None
    rows, held_out = data.rows, list[Row]()
    if share := getattr(arguments, "held_out", 0.0):
        rows, held_out = split(data.rows, share, config.seed)
    rewards = rewards_of(config, loaded.renderer.identity, rows)
    preemption = Preemption()
    finish = Finish(composed, data, loaded, method, arguments, collator)
    trainer = _constructed(
        method,
        finish,
        model=loaded.model,
        args=arguments,
        data_collator=collator,
        train_dataset=to_dataset(rows),
        processing_class=loaded.processor,
        peft_config=peft_config,
        callbacks=[LogFile(run.path / "log.jsonl"), Clock(run), *callbacks],
        parts=RunParts(
            finish_model=finish,
            timer=Throughput(partial(Spending, composed, any(row.images for row in data.rows))),
            stored_reference=stored,
            rewards=rewards,
            reward_facts=reward_facts(config),
            rows=rows,
            held_out=held_out,
            samples_file=run.rollouts_file,
            rollout_engine=_rollout_engine(config, rows, loaded, arguments),
        ),
        **({} if copy is None else {"ref_model": copy}),
    )
    check_launch(trainer.accelerator)
    if stored is not None:
        trainer.add_callback(KeepReference(stored.store))
    trainer.add_callback(StepFile(run, trainer))
    trainer.add_callback(preemption)
    trainer.add_callback(CurvePoints(run, trainer, preemption, config.evaluate.every_steps))
    if callbacks:
        trainer.remove_callback(PrinterCallback)
    return BuiltRun(trainer, loaded.family, base_of(config.model), reference, layout_facts, preemption)


def _rollout_engine(config: RunConfig, rows: Sequence[Row], loaded: Loaded, arguments: Any) -> VllmSampler | None:
    """vLLM, if it samples the responses; it is started with the first round. Raises UserError."""
    if getattr(arguments, "rollout_engine", None) != "vllm":
        return None
    longest = max(loaded.renderer.prompt_length(row) for row in rows) + arguments.max_completion_length
    images = max([1, *(len(row.images) for row in rows)])
    known = replace(loaded, model=None)
    longest = min(longest, loaded.positions or longest)
    return VllmSampler(known, config.generation.vllm, arguments.local_process_index, longest, images)


def _lay_out(collator: Any, loaded: Loaded, data: TrainingData, config: RunConfig, arguments: Any) -> list[str]:
    """Set the collator's layout. Returns why rows are padded, if another layout was asked for."""
    if in_step_by_images(arguments) and any(row.images for row in data.rows):
        collator.filler = loaded.renderer.filler()
    collator.layout, why = layout_for(config.layout, loaded.model, loaded.family, arguments)
    collator.width = loaded.model.config.get_text_config().hidden_size
    return [f"layout={config.layout}: rows are padded, because {why}"] if why else []


def _stored_reference(
    loaded: Loaded, reference: str | None, config: RunConfig, arguments: Any
) -> StoredReference | None:
    if not config.stored_reference or reference is None:
        return None
    return stored_reference(loaded.weights, loaded.model.dtype, reference, arguments)


class Finish:
    """Makes a model ready to train after trl added the adapter.

    Returns how images may be reused. Raises UserError.
    """

    def __init__(
        self,
        composed: Composed,
        data: TrainingData,
        loaded: Loaded,
        method: Any,
        arguments: Any,
        collator: Any,
    ):
        self._composed, self._data, self._family, self._collator = composed, data, loaded.family, collator
        self._arguments, self._method = arguments, method
        self._towers = full_towers(loaded.model) if composed.config.model.quantization else {}
        self.error: Exception | None = None
        """What stopped it, so that it is not taken for an error of trl's constructor, which calls it."""

    def __call__(self, model: Any) -> ImageReuse:
        """Finish `model`, to which trl has added the adapter."""
        try:
            return self._finished(model)
        except Exception as error:
            self.error = error
            raise

    def _finished(self, model: Any) -> ImageReuse:
        config = self._composed.config
        if config.model.quantization:
            restore_full_towers(model, self._towers)
            self._towers = {}
        if sharding() is None and (self._arguments.bf16 or self._arguments.fp16):
            hold_towers_in_float32(model)
        if self._method.needs_reference and config.model.adapter:
            add_frozen_copy(model)
        _refuse_rows_without_effect(model, self._family, self._data, config)
        reuse = _image_reuse(model, self._family, self._arguments, self._composed, self._same_model())
        self._collator.names_images = reuse.remembers
        return reuse

    def _same_model(self) -> bool:
        """Whether policy and reference model share the base model, and so its image features."""
        return self._method.needs_reference and self._composed.config.lora is not None


def _refuse_rows_without_effect(model: Any, family: Family, data: TrainingData, config: RunConfig) -> None:
    """Raises UserError if rows would not train any of the trainable parameters.

    The vision tower and projector get no gradient from rows without an image. If nothing else is
    trained, torch fails on a batch of such rows. If no row has an image, the run would report these
    towers as trained, although they do not change. The default of full fine-tuning, or a continued
    adapter, may include them without the user's choice, so they are frozen then.
    """
    if not any(row.images for row in data.rows):
        for tower in freeze_without_images(model, family, config):
            if PartialState().is_main_process:
                LOG.info(f"None of the training rows has an image: {tower} would get no gradient, so it is frozen")
    towers = parameters_per_tower(model, family)
    if any(towers[tower]["trainable"] for tower in ("language_model", "output_head")):
        return
    blind = [row.id for row in data.rows if not row.images]
    if blind:
        raise UserError(
            f"{len(blind)} training rows have no image ({', '.join(blind[:5])}), and no part of the language model is "
            "trained, so these rows would have no effect; remove them, or train the language model too"
        )


def _image_reuse(model: Any, family: Family, arguments: Any, composed: Composed, same_model: bool) -> ImageReuse:
    """How images may be reused. `same_model`: policy and reference model share the base model.

    Raises UserError if image features cannot be cached.
    """
    reuse = ImageReuse(frozen=not any(p.requires_grad for p in encoders(model, family).values()))
    # If all processes must encode in step, one that skips known images would leave the others
    # waiting.
    knows = not divides_weights() and unchanged(model, family)
    if (room := composed.config.stored_features) is not None:
        origin = f"{composed.origin('stored_features')}: stored_features={room:g}"
        if room <= 0:
            raise UserError(f"{origin}: expected GiB above 0")
        if not knows:
            raise UserError(f"{origin}: {_why_not(reuse.frozen)}; remove it")
        reuse.store = feature_store(model, family, arguments, room)
    reuse.remembers = knows and (reuse.store is not None or same_model)
    return reuse


def _why_not(frozen: bool) -> str:
    if divides_weights():
        return "under ZeRO-3 and FSDP all processes must encode images in step, so no features can be cached"
    if not frozen:
        return "the vision tower or projector is trained, so image features change"
    return (
        "the vision tower or projector has an adapter or dropout, so its features differ from the base model's; or the "
        "family has no layouts"
    )


def _constructed(method: type, finish: Finish, **parts: Any) -> Any:
    try:
        return method(**parts)
    except (
        ValueError,
        ImportError,
        RuntimeError,
    ) as error:  # the messages of trl, transformers and their integrations say what is wrong
        if error is finish.error:
            raise
        raise UserError(f"train: {method.__name__} cannot be set up: {error}") from error
