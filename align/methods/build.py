"""A run's configuration and rows -> model, adapter, collator and trl's trainer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from transformers import PrinterCallback

from align.catalog import METHODS, resolve
from align.config import Composed
from align.data.assembly import TrainingData
from align.data.rendering import Renderer
from align.errors import UserError
from align.methods.arguments import training_arguments
from align.methods.callbacks import Clock, LogFile, StepFile
from align.methods.rows_trainer import to_dataset
from align.models.loading import load
from align.models.lora import lora_config
from align.run_folder import RunFolder


def build_trainer(composed: Composed, data: TrainingData, run: RunFolder, callbacks: Sequence[Any] = ()) -> Any:
    """The trainer of a run, ready to train. Raises UserError."""
    config = composed.config
    method = resolve("method", config.method, METHODS)
    # The launcher's word: asking accelerate here would settle its state before TrainingArguments know of a CPU.
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    arguments = training_arguments(composed, method, run, world_size)
    arguments.disable_tqdm = arguments.disable_tqdm or bool(callbacks)  # the caller has a display of its own
    method.check_rows(data.rows)
    loaded = load(config.model)
    trainer = _constructed(
        method,
        model=loaded.model,
        args=arguments,
        data_collator=method.collator(Renderer(loaded.processor, loaded.family), arguments),
        train_dataset=to_dataset(data.rows),
        processing_class=loaded.processor,
        peft_config=lora_config(loaded.model, loaded.family, config.lora) if config.lora else None,
        callbacks=[LogFile(run.path / "log.jsonl"), Clock(run), *callbacks],
    )
    if trainer.accelerator.num_processes != world_size:
        raise UserError(
            f"{world_size} processes were launched, but accelerate runs {trainer.accelerator.num_processes} "
            f"({trainer.accelerator.distributed_type.value}); each would train on its own"
        )
    trainer.family, trainer.base = loaded.family, loaded.path
    trainer.add_callback(StepFile(run, trainer))
    if callbacks:
        trainer.remove_callback(PrinterCallback)
    return trainer


def _constructed(method: type, **parts: Any) -> Any:
    try:
        return method(**parts)
    except (
        ValueError,
        ImportError,
        RuntimeError,
    ) as error:  # trl, transformers and their integrations explain themselves
        raise UserError(f"train: {method.__name__} cannot be set up: {error}") from error
