"""Turn the `train:` section of a recipe into the method's trl configuration class."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from align.batches.layout import LAYOUTS
from align.config.errors import clash, explained
from align.config.merge import Composed, schema_of
from align.errors import UserError
from align.methods.distributed import machine_defaults
from align.run_folder import RunFolder
from align.settings import RunConfig

# Fields that a recipe cannot set -> why, and what to use instead.
SET_BY_US = {
    "output_dir": "use output_dir=",
    "seed": "use seed=",
    "gradient_accumulation_steps": "it is derived from global_batch_size; use global_batch_size=",
    "remove_unused_columns": "the collator reads whole rows; remove it",
    "resume_from_checkpoint": "use resume=",
    "push_to_hub": "training never uploads; use `align push` after training",
    "accelerator_config": "the sampler of the method deals rows to processes; remove it",
    "ignore_data_skip": "a resumed run must train on the same rows as a run without interruption; remove it",
    "auto_find_batch_size": "the batch size is part of the experiment; use train.per_device_train_batch_size",
    "hub_model_id": "training never uploads; use `align push` after training",
    "hub_strategy": "training never uploads; use `align push` after training",
    "enable_jit_checkpoint": "SIGTERM and SIGUSR1 already save a checkpoint; remove it",
    "save_only_model": "a resumed run needs its optimizer; remove it",
    "eval_strategy": "a separate process evaluates the run after training; use evaluate.*",
}
KEYS = ("hub_token", "push_to_hub_token")
"""Fields that would save a secret key in the files of a run."""
# Fields that have no effect here -> why. A run that sets one is rejected.
INERT = {
    "packing": "layout=packed packs rows",
    "eval_packing": "evaluation runs in a separate process",
    "padding_free": "layout=packed removes padding",
    "packing_strategy": "layout=packed packs rows",
    "truncation_mode": "nothing is truncated",
    "completion_only_loss": "the loss is always on the answer and its end-of-turn token",
    "assistant_only_loss": "the loss is always on the answer and its end-of-turn token",
    "dataset_text_field": "rows have fixed fields",
    "dataset_kwargs": "the collator renders the rows",
    "dataset_num_proc": "the collator renders the rows",
    "shuffle_dataset": "the sampler shuffles the rows",
    "eos_token": "the model's family defines how a turn ends",
    "pad_token": "the tokenizer defines it",
    "chat_template_path": "the processor's own chat template is used",
    "model_init_kwargs": "the settings are under model.*",
    "trust_remote_code": "remote code is never run",
    "label_smoothing_factor": "the method uses trl's loss (train.loss_type)",
    "use_liger_kernel": "the output head already computes only the supervised positions",
    "per_device_eval_batch_size": "evaluation runs in a separate process (evaluate.generation.batch_size)",
    "dataloader_drop_last": "every step is full: rows from the start of an epoch's order fill its last step",
}

GROUPED = "group_by_length"
STRATEGIES = ("random", GROUPED)
"""Row orders (`train_sampling_strategy`): a step holds the same rows in both."""


def training_arguments(composed: Composed, method: type, run: RunFolder, world_size: int) -> Any:
    """An instance of a method's configuration class.

    Raises UserError that names the file or argument of a field that is not valid.
    """
    config: RunConfig = composed.config
    if config.layout not in LAYOUTS:
        raise UserError(f"{composed.origin('layout')}: layout={config.layout}: expected one of {', '.join(LAYOUTS)}")
    if config.stored_reference and (reason := method.storable):  # type: ignore[attr-defined]
        raise UserError(
            f"{composed.origin('stored_reference')}: stored_reference=true cannot be used with method={config.method}: "
            f"{reason}; set stored_reference=false"
        )
    config_class: type = method.config_class  # type: ignore[attr-defined]
    inert = INERT | getattr(method, "inert", {})
    given = dict(config.train)
    for key in given:
        if key in KEYS:  # the origin is not printed: it may be the argument, with the key in it
            raise UserError(
                f"train.{key}: do not put a key into a configuration, which is saved with the run; set the environment "
                f"variable HF_TOKEN"
            )
        where = composed.origin(f"train.{key}")
        if key in SET_BY_US:
            raise UserError(f"{where}: train.{key} cannot be set: {SET_BY_US[key]}")
        if key in inert:
            raise UserError(f"{where}: train.{key} would have no effect: {inert[key]}; remove it")
    _check_fields(given, config_class, composed)
    share, batch = _batch(config, given, world_size)
    given = machine_defaults() | given
    values = given | {
        "output_dir": str(run.checkpoints),
        "seed": config.seed,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": share // batch,
        "remove_unused_columns": False,
    }
    try:
        arguments = config_class(**values)
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"train: {error}") from error
    if arguments.train_sampling_strategy not in STRATEGIES:
        raise UserError(
            f"{composed.origin('train.train_sampling_strategy')}: "
            f"train.train_sampling_strategy={arguments.train_sampling_strategy}: "
            f"expected one of {', '.join(STRATEGIES)}; with any other, the rows of a step would not depend on the seed "
            "alone"
        )
    _check_amounts(arguments, composed)
    method.check_arguments(arguments, config)  # type: ignore[attr-defined]
    return arguments


def _check_amounts(arguments: Any, composed: Composed) -> None:
    """Raises UserError for numbers that transformers accepts but that make no sense for training."""
    wrong = {
        "max_steps": arguments.max_steps < 1
        and arguments.max_steps != -1
        and "at least 1, or -1 to train whole epochs",
        "num_train_epochs": not arguments.num_train_epochs > 0 and "more than 0",
        "learning_rate": not arguments.learning_rate > 0 and "more than 0",
        "max_length": arguments.max_length is not None and arguments.max_length < 1 and "at least 1, or null",
    }
    for key, expected in wrong.items():
        if expected:
            raise UserError(
                f"{composed.origin(f'train.{key}')}: train.{key}={getattr(arguments, key)}: expected {expected}"
            )


def _batch(config: RunConfig, given: dict[str, Any], world_size: int) -> tuple[int, int]:
    """(rows of a step on one process, rows of a forward pass).

    The batch size is part of the experiment, so it is never rounded. Raises UserError if it does
    not divide.
    """
    if config.num_processes not in (None, world_size):
        raise UserError(
            f"num_processes={config.num_processes}, but {world_size} processes are running; "
            f"launch with `accelerate launch --num_processes {config.num_processes} ...`"
        )
    if config.global_batch_size < 1:
        raise UserError(f"global_batch_size={config.global_batch_size}: expected at least 1")
    share, rest = divmod(config.global_batch_size, world_size)
    if rest or not share:
        raise UserError(
            f"global_batch_size={config.global_batch_size} cannot be divided over {world_size} processes; use a "
            "multiple of that number"
        )
    batch = given.get("per_device_train_batch_size", share)
    if batch < 1 or share % batch:
        raise UserError(
            f"global_batch_size={config.global_batch_size} over {world_size} processes gives {share} rows each; "
            f"train.per_device_train_batch_size={batch} does not divide that number: use one of its divisors"
        )
    return share, batch


def _check_fields(given: dict[str, Any], config_class: type, composed: Composed) -> None:
    schema = schema_of(config_class)
    for key, value in given.items():
        if wrong := clash(schema, {key: value}, "train."):
            raise UserError(f"{composed.origin(f'train.{key}')}: {wrong}")
        try:
            given[key] = _typed(schema, key, value)
        except (OmegaConfBaseException, ValueError) as error:
            raise UserError(f"{composed.origin(f'train.{key}')}: {explained(error, 'train.')}") from error


def _typed(schema: Any, key: str, value: Any) -> Any:
    # Merging copies the whole schema, so for a known field only its own node is merged.
    known = OmegaConf.masked_copy(schema, key) if key in schema else schema
    try:
        return OmegaConf.to_container(OmegaConf.merge(known, {key: value}))[key]
    except (OmegaConfBaseException, ValueError) as error:
        with contextlib.suppress(OmegaConfBaseException, ValueError):
            if not isinstance(value, list):  # a single value for a list becomes a list of one, as in every setting
                return _typed(schema, key, [value])
        raise error


SHOWN = (
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "max_steps", "optim", "weight_decay"),
    *(
        "max_grad_norm",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "max_length",
        "loss_type",
        "beta",
        "label_smoothing",
    ),
    *("bf16", "fp16", "gradient_checkpointing", "dataloader_num_workers"),
)
"""Fields that define how a run trains. They are always recorded and shown, also where they have
their default."""


def shown(arguments: Any) -> dict[str, Any]:
    """Values of the fields in `SHOWN` that a configuration has, and of the method's own fields."""
    classes = [base for base in type(arguments).__mro__ if base.__module__.startswith("align.")]
    own = [name for base in classes for name in vars(base).get("__annotations__", {})]
    values = asdict(arguments)
    # transformers' enumerations are shown as the value that a user types.
    return {key: getattr(values[key], "value", values[key]) for key in dict.fromkeys([*SHOWN, *own]) if key in values}


def describe(arguments: Any) -> dict[str, Any]:
    """The fields for the manifest: those not at their class's default, and those in `shown`."""
    always = shown(arguments)
    defaults = {name: field.default for name, field in type(arguments).__dataclass_fields__.items()}
    values = asdict(arguments)
    return {
        key: values[key]
        for key in sorted(values)
        if (values[key] != defaults.get(key) or key in always) and isinstance(values[key], str | int | float | bool)
    }
