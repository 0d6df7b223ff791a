"""Checks of one run on this machine: configuration, model, data, benchmarks, packages."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from align.config.merge import Composed
from align.config.paths import is_hub_id
from align.doctor.check import BROKEN, MISSING, OK, WARNING, Check
from align.doctor.machine import Device, gib
from align.doctor.memory import memory
from align.errors import UserError
from align.families import FAMILIES
from align.files import read_json
from align.models import presence
from align.settings import RunConfig

SHORT = ("bfloat16", "float16")
BYTES_SAVED = 14
"""Bytes of a weight in a checkpoint of full fine-tuning: 2 for the weight, 12 for the optimizer.

The optimizer stores a float32 copy and AdamW's two float32 moments.
"""


def checks(composed: Composed, gpus: Sequence[Device]) -> Iterator[Check]:
    """Checks of everything that could stop the run."""
    config: RunConfig = composed.config
    needed = [configuration(composed), model(config), *data(config)]
    yield from needed
    if all(check.status in (OK, WARNING) for check in needed):  # otherwise they already show the cause
        yield rows(composed)
        yield memory(composed, gpus)
    yield from packages(config)
    yield from precision(config, gpus)


def configuration(composed: Composed) -> Check:
    """Check settings of the method with trl's configuration class, and settings of generation."""
    config: RunConfig = composed.config
    try:
        from align.answering.endpoint import check_settings
        from align.config.registry import METHODS, resolve
        from align.console import quiet_libraries
        from align.methods.arguments import training_arguments
        from align.run_folder import run_folder

        quiet_libraries()
        check_settings(config.generation)
        processes = int(os.environ.get("WORLD_SIZE") or config.num_processes or 1)
        method = resolve("method", config.method, METHODS)
        arguments = training_arguments(composed, method, run_folder(config), processes)
    except UserError as error:
        return Check("configuration", BROKEN, str(error), "correct it; dry_run=true shows where each value comes from")
    except Exception as error:  # a broken installation can raise anything on import
        return Check("configuration", BROKEN, f"{type(error).__name__}: {error}", "repair the packages named above")
    size, accumulated = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    batch = f"rows of a step: {processes} x {size} x {accumulated} (processes x rows per device x accumulation steps)"
    return Check("configuration", OK, f"{config.recipe} ({config.method}) on {config.model.name}, {batch}")


def model(config: RunConfig) -> Check:
    """Check the model's files: in a folder, in the cache, or to build or download at start."""
    settings = config.model
    if not settings.path and not settings.build:
        return Check(
            "model", MISSING, "neither model.path nor model.build is set", "give model=<name, folder or Hub id>"
        )
    if not settings.path:
        return Check("model", OK, f"{settings.name}: built by {settings.build} on first use")
    if line := presence.absent(settings, strict=True):
        if not is_hub_id(settings.path):
            return Check("model", MISSING, line)
        fetch = presence.remedy(settings, config.recipe)
        if presence.offline():
            return Check("model", MISSING, f"{line}, and HF_HUB_OFFLINE forbids downloads", fetch)
        return Check("model", WARNING, line, f"the run will download it; or {fetch}")
    folder = _folder(config)
    assert folder is not None
    kind = presence.model_type(folder)
    if kind not in FAMILIES and not config.model.family:
        return Check("model", BROKEN, f"{settings.path} is of type {kind}", f"known types: {', '.join(FAMILIES)}")
    return Check("model", OK, f"{settings.path}: {kind}, weights {gib(presence.weights_of(folder).total)}, in {folder}")


def data(config: RunConfig) -> Iterator[Check]:
    """Check the adapter to continue, data, benchmarks, and responses to generate at start."""
    from align.training.preflight import answers_to_come, surveyed

    if config.model.adapter:
        lack = presence.absent_adapter(config.model.adapter)
        yield Check("adapter", MISSING if lack else OK, lack or config.model.adapter)
    if not config.data:
        yield Check("data", MISSING, "no data", "name a suite, or give data.<part>.source= and data.<part>.path=")
    for part in surveyed(config):
        yield Check(part.name, OK if part.readable else MISSING, part.found)
    for line in answers_to_come(config):
        yield Check("answers", OK, line)


def rows(composed: Composed) -> Check:
    """Check every training row, as the run does before it loads a model."""
    from align.training.prepare import look_over

    try:
        return Check("rows", OK, look_over(composed))
    except UserError as error:
        return Check("rows", BROKEN, str(error))


def packages(config: RunConfig) -> Iterator[Check]:
    """Check optional packages that the run's settings need."""
    for module, (setting, install) in wanted_packages(config).items():
        there = importlib.util.find_spec(module) is not None
        found = f"{setting} needs {module}, which is {'installed' if there else 'not installed'}"
        yield Check(f"needs {module}", OK if there else MISSING, found, "" if there else f"pip install '{install}'")


def wanted_packages(config: RunConfig) -> dict[str, tuple[str, str]]:
    """{module: (setting that needs it, package to install)}."""
    from align.methods.distributed import sharding

    train, wanted = config.train, {}
    report_to = train.get("report_to") or []
    for tracker in [report_to] if isinstance(report_to, str) else report_to:
        if tracker in ("wandb", "tensorboard"):
            wanted[tracker] = (f"train.report_to={tracker}", f"vsil-align[{tracker}]")
    if any(word in str(train.get("optim", "")) for word in ("8bit", "bnb", "paged")):
        wanted["bitsandbytes"] = (f"train.optim={train['optim']}", "vsil-align[quant]")
    if config.model.quantization:
        wanted["bitsandbytes"] = (f"model.quantization={config.model.quantization}", "vsil-align[quant]")
    if config.model.attn_implementation == "flash_attention_2":
        wanted["flash_attn"] = ("model.attn_implementation=flash_attention_2", "flash-attn")
    if config.generation.base_url:
        wanted["openai"] = (f"generation.base_url={config.generation.base_url}", "vsil-align[openai]")
    if train.get("deepspeed") or sharding() == "DEEPSPEED":
        wanted["deepspeed"] = ("ZeRO", "vsil-align[deepspeed]")
    return wanted


def precision(config: RunConfig, gpus: Sequence[Device]) -> Iterator[Check]:
    """Check whether the devices support bf16, if the run uses it."""
    folder = _folder(config)
    stored = read_json(folder / "config.json") if config.model.dtype == "auto" and folder else {}
    asked = {
        "model.dtype=bfloat16": config.model.dtype == "bfloat16",
        "model.dtype=auto, stored in bfloat16": (stored.get("dtype") or stored.get("torch_dtype")) == "bfloat16",
        "train.bf16=true": bool(config.train.get("bf16")),
    }
    setting = next((setting for setting, holds in asked.items() if holds), None)
    lacking = [f"cuda:{i}" for i, gpu in enumerate(gpus) if not gpu.bf16]
    if setting and lacking:
        todo = "model.dtype=float16 train.bf16=false train.fp16=true, or other devices"
        yield Check("bf16", WARNING, f"{setting}, which {', '.join(lacking)} can only emulate", todo)
    elif setting and gpus:
        yield Check("bf16", OK, setting)


def space(config: RunConfig) -> dict[str, int]:
    """{name of check: bytes that the run needs on that disk}, if the model's size is known.

    Checkpoints of an adapter are small; checkpoints of full fine-tuning store every weight several
    times. transformers writes a new checkpoint before it removes the oldest.
    """
    folder = _folder(config)
    if folder is None:
        return {}
    weights = presence.weights_of(folder)
    saves = config.train.get("save_strategy") != "no"
    checkpoints = (config.train.get("save_total_limit") or 0) + 1 if saves else 0
    stored = read_json(folder / "config.json")
    numbers = weights.total // (2 if (stored.get("dtype") or stored.get("torch_dtype")) in SHORT else 4)
    written = numbers * (BYTES_SAVED * checkpoints + 4) if config.lora is None else 0
    return {"disk output_dir": written, "disk HF_HOME": weights.total - weights.there}


def key_variables(config: RunConfig) -> list[str]:
    """Environment variables with the run's keys.

    Empty if the setting is not a variable name, because it may be the key itself.
    """
    from align.answering.endpoint import check_settings

    try:
        check_settings(config.generation)
    except UserError:  # the configuration check reports it
        return []
    return [config.generation.api_key_env] if config.generation.api_key_env else []


def _folder(config: RunConfig) -> Path | None:
    """The model's folder or snapshot, if it is on this machine."""
    path = config.model.path
    folder = presence.folder_of(path, config.model.revision) if path else None
    return folder if folder and (folder / "config.json").is_file() else None
