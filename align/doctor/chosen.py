"""One run on this machine: whether its configuration, model, data, benchmarks and packages are in order."""

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
"""Of a weight in a checkpoint of full fine-tuning: itself in 16 bits, and in float32 the optimizer's copy of it and AdamW's two moments."""


def checks(composed: Composed, gpus: Sequence[Device]) -> Iterator[Check]:
    """Everything that would stop the run, each in a line of its own."""
    config: RunConfig = composed.config
    needed = [configuration(composed), model(config), *data(config)]
    yield from needed
    if all(check.status in (OK, WARNING) for check in needed):  # otherwise they say already why rows cannot be checked
        yield rows(composed)
        yield memory(composed, gpus)
    yield from packages(config)
    yield from precision(config, gpus)


def configuration(composed: Composed) -> Check:
    """The method's settings as trl's configuration class takes them, and those of generation."""
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
    except Exception as error:  # a broken installation raises anything while it is imported
        return Check("configuration", BROKEN, f"{type(error).__name__}: {error}", "mend the packages named above")
    size, accumulated = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    batch = f"a step of {processes} processes x {size} rows x {accumulated} accumulated"
    return Check("configuration", OK, f"{config.recipe} ({config.method}) on {config.model.name}, {batch}")


def model(config: RunConfig) -> Check:
    """Its files: in a folder, in the hub's cache, or to be built or downloaded when the run starts."""
    settings = config.model
    if not settings.path and not settings.build:
        return Check("model", MISSING, "neither model.path nor model.build is set", "model=<name, folder or hub id>")
    if not settings.path:
        return Check("model", OK, f"{settings.name}: built by {settings.build} on first use")
    if line := presence.absent(settings, strict=True):
        if not is_hub_id(settings.path):
            return Check("model", MISSING, line)
        fetch = presence.remedy(settings, config.recipe)
        if presence.offline():
            return Check("model", MISSING, f"{line}, and HF_HUB_OFFLINE forbids to ask the hub", fetch)
        return Check("model", WARNING, line, f"the run would download it; or {fetch}")
    folder = _folder(config)
    assert folder is not None
    kind = presence.model_type(folder)
    if kind not in FAMILIES and not config.model.family:
        return Check("model", BROKEN, f"{settings.path} is of type {kind}", f"known types: {', '.join(FAMILIES)}")
    return Check("model", OK, f"{settings.path}: {kind}, weights {gib(presence.weights_of(folder).total)}, in {folder}")


def data(config: RunConfig) -> Iterator[Check]:
    """The adapter that is continued, every part of the data and every benchmark, and what is generated when the run starts."""
    from align.training.preflight import answers_to_come, surveyed

    if config.model.adapter:
        lack = presence.absent_adapter(config.model.adapter)
        yield Check("adapter", MISSING if lack else OK, lack or config.model.adapter)
    if not config.data:
        yield Check("data", MISSING, "none", "name a suite, or give data.<part>.source= and data.<part>.path=")
    for part in surveyed(config):
        yield Check(part.name, OK if part.readable else MISSING, part.found)
    for line in answers_to_come(config):
        yield Check("answers", OK, line)


def rows(composed: Composed) -> Check:
    """Every row of the training data, as the run itself checks it before it loads a model."""
    from align.training.prepare import look_over

    try:
        return Check("rows", OK, look_over(composed))
    except UserError as error:
        return Check("rows", BROKEN, str(error))


def packages(config: RunConfig) -> Iterator[Check]:
    """The optional packages that the run's settings ask for."""
    for module, (setting, install) in wanted_packages(config).items():
        there = importlib.util.find_spec(module) is not None
        found = f"{setting} needs {module}, which is {'present' if there else 'absent'}"
        yield Check(f"needs {module}", OK if there else MISSING, found, "" if there else f"pip install '{install}'")


def wanted_packages(config: RunConfig) -> dict[str, tuple[str, str]]:
    """{module: (the setting that asks for it, what to install)}."""
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
    """Whether the devices compute in bf16, where the run asks for it."""
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
    """Bytes that the run will take on a disk, by the name of the check, where the model's size is known.

    An adapter's checkpoints are small; those of full fine-tuning hold every weight several times. transformers writes a new one
    before it removes the oldest.
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
    """The environment variables that the run reads a key from; none where the setting is no name, since it may be the key itself."""
    from align.answering.endpoint import check_settings

    try:
        check_settings(config.generation)
    except UserError:  # which the check of the configuration says
        return []
    return [config.generation.api_key_env] if config.generation.api_key_env else []


def _folder(config: RunConfig) -> Path | None:
    """The model's folder or snapshot, where it is here."""
    path = config.model.path
    folder = presence.folder_of(path, config.model.revision) if path else None
    return folder if folder and (folder / "config.json").is_file() else None
