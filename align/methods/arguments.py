"""The `train:` section of a recipe -> trl's configuration class of a method, its fields unrenamed."""

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

SET_BY_US = {
    "output_dir": "output_dir=",
    "seed": "seed=",
    "gradient_accumulation_steps": "global_batch_size=, from which it is derived",
    "remove_unused_columns": "nothing: our collator reads whole rows",
    "resume_from_checkpoint": "resume=",
    "push_to_hub": "nothing: training never uploads",
    "accelerator_config": "nothing: how rows are dealt to processes is the sampler's",
    "ignore_data_skip": "nothing: a run that resumes takes the rows that it would have taken",
    "auto_find_batch_size": "train.per_device_train_batch_size: the batch is a setting of the science",
    "hub_model_id": "align push, after training",
    "hub_strategy": "align push, after training",
    "enable_jit_checkpoint": "nothing: SIGTERM and SIGUSR1 save a checkpoint as it is",
    "save_only_model": "nothing: a run that resumes needs its optimizer",
    "eval_strategy": "evaluate.*: the evaluation follows the training in a process of its own",
}
KEYS = ("hub_token", "push_to_hub_token")
"""Fields that would keep a key in the files of a run."""
INERT = {
    "packing": "see layout=packed",
    "eval_packing": "the evaluation is a process of its own",
    "padding_free": "see layout=packed",
    "packing_strategy": "see layout=packed",
    "truncation_mode": "nothing is ever cut",
    "completion_only_loss": "the loss is always on the answer and its end of turn",
    "assistant_only_loss": "the loss is always on the answer and its end of turn",
    "dataset_text_field": "rows have their own fields",
    "dataset_kwargs": "rows are rendered by our collator",
    "dataset_num_proc": "rows are rendered by our collator",
    "shuffle_dataset": "the sampler shuffles",
    "eos_token": "a family says how a turn ends",
    "pad_token": "the tokenizer has one",
    "chat_template_path": "the processor's own template is used",
    "model_init_kwargs": "use model.*",
    "trust_remote_code": "remote code is not run",
    "label_smoothing_factor": "the loss is trl's own of the method (train.loss_type)",
    "use_liger_kernel": "the output head works on the supervised positions already",
    "per_device_eval_batch_size": "the evaluation is a process of its own (evaluate.generation.batch_size)",
    "dataloader_drop_last": "steps are always whole: rows from the beginning of an epoch's order fill its last one",
}

GROUPED = "group_by_length"
STRATEGIES = ("random", GROUPED)
"""Orders of rows (`train_sampling_strategy`): a step holds the same rows in either."""


def training_arguments(composed: Composed, method: type, run: RunFolder, world_size: int) -> Any:
    """An instance of a method's configuration class. Raises UserError that names the file or argument of a field that cannot be."""
    config: RunConfig = composed.config
    if config.layout not in LAYOUTS:
        raise UserError(f"{composed.origin('layout')}: layout={config.layout}: expected one of {', '.join(LAYOUTS)}")
    if config.stored_reference and (reason := method.storable):  # type: ignore[attr-defined]
        raise UserError(
            f"{composed.origin('stored_reference')}: stored_reference=true: method={config.method}: {reason}"
        )
    config_class: type = method.config_class  # type: ignore[attr-defined]
    inert = INERT | getattr(method, "inert", {})
    given = dict(config.train)
    for key in given:
        if key in KEYS:  # not repeated here, where an origin may be the argument itself
            raise UserError(
                f"train.{key}: a key does not belong into a configuration, which is kept with the run; use HF_TOKEN"
            )
        where = composed.origin(f"train.{key}")
        if key in SET_BY_US:
            raise UserError(f"{where}: train.{key} is not set here; use {SET_BY_US[key]}")
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
            f"{composed.origin('train.train_sampling_strategy')}: train.train_sampling_strategy={arguments.train_sampling_strategy}: "
            f"expected one of {', '.join(STRATEGIES)}; which rows a step holds is a matter of the seed"
        )
    _check_amounts(arguments, composed)
    method.check_arguments(arguments, config)  # type: ignore[attr-defined]
    return arguments


def _check_amounts(arguments: Any, composed: Composed) -> None:
    """Raises UserError for amounts that transformers accepts and that train nothing, or something else than they say."""
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
    """(rows of a step on one process, rows of a forward pass). The batch is a setting of the science: what does not divide is an error."""
    if config.num_processes not in (None, world_size):
        raise UserError(
            f"num_processes={config.num_processes}, but {world_size} processes are running; "
            f"launch with `accelerate launch --num_processes {config.num_processes} ...`"
        )
    if config.global_batch_size < 1:
        raise UserError(f"global_batch_size={config.global_batch_size}: expected at least 1")
    share, rest = divmod(config.global_batch_size, world_size)
    if rest or not share:
        raise UserError(f"global_batch_size={config.global_batch_size} cannot be divided over {world_size} processes")
    batch = given.get("per_device_train_batch_size", share)
    if batch < 1 or share % batch:
        raise UserError(
            f"global_batch_size={config.global_batch_size} over {world_size} processes is {share} rows each, "
            f"which train.per_device_train_batch_size={batch} does not divide"
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
    # Of a field that exists its own node is enough; merging copies all that it is given.
    known = OmegaConf.masked_copy(schema, key) if key in schema else schema
    try:
        return OmegaConf.to_container(OmegaConf.merge(known, {key: value}))[key]
    except (OmegaConfBaseException, ValueError) as error:
        with contextlib.suppress(OmegaConfBaseException, ValueError):
            if not isinstance(value, list):  # one value for a list is a list of one, as everywhere in the grammar
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
"""Fields that say how a run trains: recorded and shown whoever set them."""


def shown(arguments: Any) -> dict[str, Any]:
    """`SHOWN` of a configuration that has them, and the method's own."""
    classes = [base for base in type(arguments).__mro__ if base.__module__.startswith("align.")]
    own = [name for base in classes for name in vars(base).get("__annotations__", {})]
    values = asdict(arguments)
    # Enumerations of transformers by what one would type.
    return {key: getattr(values[key], "value", values[key]) for key in dict.fromkeys([*SHOWN, *own]) if key in values}


def describe(arguments: Any) -> dict[str, Any]:
    """The resolved fields that differ from the class's own defaults or say how a run trains, for the manifest."""
    always = shown(arguments)
    defaults = {name: field.default for name, field in type(arguments).__dataclass_fields__.items()}
    values = asdict(arguments)
    return {
        key: values[key]
        for key in sorted(values)
        if (values[key] != defaults.get(key) or key in always) and isinstance(values[key], str | int | float | bool)
    }
