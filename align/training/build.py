"""A run's configuration and rows -> model, adapter, collator and trl's trainer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from transformers import PrinterCallback

from align.config.merge import Composed
from align.config.registry import METHODS, resolve
from align.data.assembly import TrainingData
from align.errors import UserError
from align.fast.feature_store import feature_store
from align.fast.images_once import encoders, unchanged
from align.fast.model_inputs import layout_for
from align.fast.reference_store import KeepReference, stored_reference
from align.methods.arguments import training_arguments
from align.methods.distributed import (
    check_launch,
    divides_weights,
    in_step_by_images,
    name_layers,
    sharding,
    world_size,
)
from align.methods.trainer import to_dataset
from align.models.loading import base_of, load, parameters_per_tower
from align.models.quantization import full_towers, restore_full_towers
from align.models.reference import add_frozen_copy, kind_of_reference
from align.models.trainable import (
    choose_trainable,
    freeze_without_images,
    hold_towers_in_float32,
    refuse_short_weights,
)
from align.planning.spent import Spending
from align.run_folder import RunFolder
from align.settings import RunConfig
from align.training.callbacks import Clock, LogFile, Preemption, StepFile
from align.training.curve_points import CurvePoints
from align.training.throughput import Throughput


def build_trainer(composed: Composed, data: TrainingData, run: RunFolder, callbacks: Sequence[Any] = ()) -> Any:
    """The trainer of a run, ready to train. Raises UserError."""
    config = composed.config
    method = resolve("method", config.method, METHODS)
    arguments = training_arguments(composed, method, run, world_size())
    arguments.disable_tqdm = arguments.disable_tqdm or bool(callbacks)  # the caller has a display of its own
    loaded = load(config.model)
    peft_config = choose_trainable(loaded.model, loaded.family, config)
    if sharding() is None:
        refuse_short_weights(loaded.model, config)
    continued = full_towers(loaded.model)
    copy = load(config.model).model.requires_grad_(False) if method.needs_reference and config.lora is None else None
    renderer = loaded.renderer
    collator = method.collator(renderer, arguments)
    if in_step_by_images(arguments) and any(row.images for row in data.rows):
        collator.filler = renderer.filler()
    collator.layout, why = layout_for(config.layout, loaded.model, loaded.family, arguments)
    collator.width = loaded.model.config.get_text_config().hidden_size
    name_layers(loaded.model)
    trainer = _constructed(
        method,
        model=loaded.model,
        args=arguments,
        data_collator=collator,
        train_dataset=to_dataset(data.rows),
        processing_class=loaded.processor,
        peft_config=peft_config,
        callbacks=[LogFile(run.path / "log.jsonl"), Clock(run), *callbacks],
        **({} if copy is None else {"ref_model": copy}),
    )
    if config.model.quantization:
        restore_full_towers(trainer.model, continued)
    if sharding() is None and (arguments.bf16 or arguments.fp16):
        hold_towers_in_float32(trainer.model)
    if method.needs_reference and config.model.adapter:
        add_frozen_copy(trainer.model)
    trainer.reference = kind_of_reference(trainer.model, copy) if method.needs_reference else None
    check_launch(trainer.accelerator)
    if config.stored_reference:
        trainer.stored_reference = stored_reference(loaded.weights, loaded.model.dtype, trainer)
        trainer.add_callback(KeepReference(trainer.stored_reference.store))
        collator.keyed = True
    trainer.pace = Throughput(partial(Spending, composed, any(row.images for row in data.rows)))
    trainer.layout_facts = [f"layout={config.layout}: rows are padded, since {why}"] if why else []
    trainer.family, trainer.base = loaded.family, base_of(config.model)
    _refuse_rows_without_effect(trainer, data, config)
    _encode_once(trainer, composed, one_base=copy is None)
    trainer.preemption = Preemption(trainer.accelerator)
    trainer.add_callback(StepFile(run, trainer))
    trainer.add_callback(trainer.preemption)
    trainer.add_callback(CurvePoints(run, trainer, config.evaluate.every_steps))
    if callbacks:
        trainer.remove_callback(PrinterCallback)
    return trainer


def _refuse_rows_without_effect(trainer: Any, data: TrainingData, config: RunConfig) -> None:
    """Raises UserError where rows and what is trained do not go together.

    What reads images gets no gradient from rows without one. Where it alone is trained, torch stops in the middle of such a batch;
    where no row has one, it would be reported as trained and be what it was. Full fine-tuning's default and a continued adapter hold
    such towers unasked: these are frozen, so that nothing is said to be trained that is not.
    """
    if not any(row.images for row in data.rows):
        for tower in freeze_without_images(trainer.model, trainer.family, config):
            if trainer.accelerator.is_main_process:
                print(
                    f"None of the training rows has an image: {tower} would get no gradient and is left as it is",
                    flush=True,
                )
    towers = parameters_per_tower(trainer.model, trainer.family)
    if any(towers[tower]["trainable"] for tower in ("language_model", "output_head")):
        return
    blind = [row.id for row in data.rows if not row.images]
    if blind:
        raise UserError(
            f"{len(blind)} training rows have no image ({', '.join(blind[:5])}), and nothing of the language model is trained: they "
            f"would have no effect; leave them out, or train the language model too"
        )


def _encode_once(trainer: Any, composed: Composed, one_base: bool) -> None:
    """What encodes images works no more than it must. `one_base`: the reference, if there is one, is the same model.

    Raises UserError where features of images cannot be stored.
    """
    images, model, family = trainer.head.images, trainer.model, trainer.family
    images.frozen = not any(p.requires_grad for p in encoders(model, family).values())
    # Where all processes must encode in step, one that knows its images would leave the others waiting.
    knows = not divides_weights() and unchanged(model, family)
    if (room := composed.config.stored_features) is not None:
        origin = f"{composed.origin('stored_features')}: stored_features={room:g}"
        if room <= 0:
            raise UserError(f"{origin}: expected GiB above 0")
        if not knows:
            raise UserError(f"{origin}: {_why_not(images.frozen)}; leave it out")
        images.store = feature_store(model, family, trainer.args, room)
    images.remembers = knows and (images.store is not None or (trainer.needs_reference and one_base))
    trainer.data_collator.names_images = images.remembers


def _why_not(frozen: bool) -> str:
    if divides_weights():
        return "under ZeRO-3 and FSDP all processes encode images in step"
    if not frozen:
        return "what encodes images (vision tower, projector) is trained, so that features change"
    return (
        "an adapter or dropout in what encodes images makes others of them than the base, or the family has no layouts"
    )


def _constructed(method: type, **parts: Any) -> Any:
    try:
        return method(**parts)
    except (
        ValueError,
        ImportError,
        RuntimeError,
    ) as error:  # trl, transformers and their integrations explain themselves
        raise UserError(f"train: {method.__name__} cannot be set up: {error}") from error
