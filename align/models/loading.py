"""From a model's settings to a model, its processor and its family."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText

from align.catalog import resolve
from align.errors import UserError
from align.models.families import Family, family_of
from align.models.processors import load_processor
from align.settings import ModelSettings

DTYPES = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SAMPLES, SAMPLE_BYTES = 64, 1 << 16


@dataclass
class Loaded:
    """A model that is ready to train or to answer."""

    model: Any
    processor: Any
    family: Family
    path: str
    """Where the base weights came from."""
    weights: str
    """Sixteen hex digits that change with the weights (base and adapter), their dtype and revision."""


def locate(settings: ModelSettings) -> str:
    """The folder or hub id of a model; made first where it is one that is built. Raises UserError."""
    if settings.path:
        return settings.path
    if settings.build:
        return str(resolve("model.build", settings.build)())
    raise UserError(f"model {settings.name!r}: neither model.path (a folder or hub id) nor model.build is set")


def load(settings: ModelSettings, adapter: str | None = None) -> Loaded:
    """Base weights, and on top of them a peft adapter if one is given. Raises UserError for an unknown family or dtype."""
    known = load_without_weights(settings, adapter)
    path = known.path
    model = _readable(
        path,
        lambda: AutoModelForImageTextToText.from_pretrained(
            path,
            revision=settings.revision,
            dtype=DTYPES[settings.dtype],
            attn_implementation=settings.attn_implementation,
            use_safetensors=True,
        ),
    )
    if adapter is not None:
        from peft import PeftModel

        if not Path(adapter, "adapter_model.safetensors").is_file():
            raise UserError(
                f"adapter {adapter}: there is no adapter_model.safetensors; pickles (adapter_model.bin) are not loaded"
            )
        model = _readable(adapter, lambda: PeftModel.from_pretrained(model, adapter))
    return replace(known, model=model)


def load_without_weights(settings: ModelSettings, adapter: str | None = None) -> Loaded:
    """All that `load` gives but the model itself, which is None: in a moment, for a model of any size. Raises UserError."""
    path = locate(settings)
    if settings.dtype not in DTYPES:
        raise UserError(f"model.dtype={settings.dtype}: expected one of {', '.join(DTYPES)}")
    config = _readable(path, lambda: AutoConfig.from_pretrained(path, revision=settings.revision))
    family = family_of(config.model_type)
    processor = _readable(path, lambda: load_processor(path, settings.revision))
    commit = str(getattr(config, "_commit_hash", None))
    weights = _fingerprint(
        [path, *([adapter] if adapter else [])], f"{commit} {settings.dtype} {settings.attn_implementation}"
    )
    return Loaded(None, processor, family, path, weights)


def _fingerprint(folders: list[str], more: str) -> str:
    """Of local files their size and samples of their bytes: reading 14 GB to the end would take longer than loading them."""
    digest = hashlib.sha256(more.encode())
    for file in sorted(file for folder in folders for file in Path(folder).glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as content:
            for i in range(SAMPLES):
                content.seek(max(size - SAMPLE_BYTES, 0) * i // (SAMPLES - 1))
                digest.update(content.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def load_checkpoint(path: str, settings: ModelSettings | None = None) -> Loaded:
    """A model folder or hub id, or a peft adapter's folder, whose base it names itself."""
    settings = settings or ModelSettings(name=Path(path).name)
    adapter_config = Path(path, "adapter_config.json")
    if not adapter_config.is_file():
        return load(replace(settings, path=path, build=None))
    base = json.loads(adapter_config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    return load(replace(settings, path=base, build=None), adapter=path)


def parameters_per_tower(model: Any, family: Family) -> dict[str, dict[str, int]]:
    """{tower: {all, trainable}} parameter counts; what belongs to no tower is the output head."""
    counts: dict[str, dict[str, int]] = {}
    for name, parameter in model.named_parameters():
        count = counts.setdefault(family.tower_of(name) or "output_head", {"all": 0, "trainable": 0})
        count["all"] += parameter.numel()
        count["trainable"] += parameter.numel() if parameter.requires_grad else 0
    return counts


def _readable(path: str, read: Any) -> Any:
    try:
        return read()
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"model {path}: cannot be loaded: {error}") from error
