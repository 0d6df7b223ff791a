"""Load a model, its processor and its family from settings."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from align.batches.rendering import Renderer
from align.config.registry import resolve
from align.errors import UserError
from align.families import Family, family_of
from align.fast.renderer import renderer_of
from align.models import presence
from align.models.presence import absent_adapter, refuse_absent
from align.models.processors import load_processor
from align.models.quantization import count, quantization_config, refuse_dora_in_int8, refuse_odd_widths
from align.models.reference import FROZEN
from align.models.weights import Base, fingerprint_of
from align.settings import ModelSettings

LOG = logging.getLogger(__name__)

DTYPES = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Loaded:
    """A model that is ready for training or generation."""

    model: Any
    processor: Any
    family: Family
    path: str
    """The folder or Hub id of the base weights."""
    weights: str
    """Sixteen hex digits that change with the weights (base and adapter), the way they are loaded,
    and image preparation.
    """
    settings: ModelSettings
    positions: int | None = None
    """The model's maximum sequence length in tokens; None if its configuration does not have it."""

    @cached_property
    def renderer(self) -> Renderer:
        """The renderer that turns rows into this model's inputs."""
        return renderer_of(self.processor, self.family, self.settings)


def locate(settings: ModelSettings) -> str:
    """The folder or Hub id of a model; `model.build` builds it first. Raises UserError."""
    if settings.path:
        return settings.path
    if settings.build:
        return str(resolve("model.build", settings.build)())
    raise UserError(
        f"model {settings.name!r}: neither model.path nor model.build is set; set model.path to a folder or a Hub id"
    )


def load(settings: ModelSettings, adapter: str | None = None) -> Loaded:
    """Load base weights and a peft adapter: `adapter`, or else `settings.adapter`, which is trainable.

    Raises UserError for an unknown family, dtype or quantization, and for files that cannot be read.
    """
    known = load_without_weights(settings, adapter)
    path, on_top = known.path, adapter or settings.adapter
    quantized = None
    if settings.quantization is not None:
        quantized = quantization_config(
            settings.quantization, known.family, _compute_dtype(settings, _config(settings, path))
        )
    model = _readable(
        path,
        lambda: AutoModelForImageTextToText.from_pretrained(
            path,
            revision=settings.revision,
            dtype=DTYPES[settings.dtype],
            attn_implementation=settings.attn_implementation,
            quantization_config=quantized,
            use_safetensors=True,
        ),
    )
    if is_deepspeed_zero3_enabled():
        # transformers records here which weight names it changed while loading; under ZeRO-3 also
        # names that it did not change, so it would save the weights under names that no other
        # program knows. Without this record it uses the model's usual names.
        model._weight_conversions = None
    if on_top is not None:
        model = _with_adapter(model, on_top, trainable=adapter is None)
        trained_on = model.peft_config["default"].base_model_name_or_path
        if adapter is None and trained_on != path:
            LOG.info(f"Adapter {on_top} was trained on {trained_on}; its training continues on {path}")
        refuse_dora_in_int8(settings.quantization, model.peft_config["default"].use_dora)
    return replace(known, model=model)


def load_without_weights(settings: ModelSettings, adapter: str | None = None) -> Loaded:
    """`load` without the weights (`model` is None): fast for a model of any size. Raises UserError."""
    path, on_top = locate(settings), adapter or settings.adapter
    if on_top is not None and (lack := absent_adapter(on_top)):
        raise UserError(lack)
    if settings.dtype not in DTYPES:
        raise UserError(f"model.dtype={settings.dtype}: expected one of {', '.join(DTYPES)}")
    refuse_absent(settings)
    config = _config(settings, path)
    family = family_of(config.model_type, settings.family)
    refuse_odd_widths(settings.quantization, config)
    processor = _readable(path, lambda: load_processor(path, settings))
    commit = str(getattr(config, "_commit_hash", None))
    shown_as = (settings.image_aspect_ratio, settings.min_pixels, settings.max_pixels)
    loaded_as = f"{commit} {settings.dtype} {settings.attn_implementation} {settings.quantization} {shown_as}"
    images = json.dumps([type(processor.image_processor).__name__, processor.image_processor.to_dict()], default=str)
    folder = presence.folder_of(path, settings.revision)
    folders = [str(folder) if folder else path, *([on_top] if on_top else [])]
    weights = fingerprint_of(folders, f"{loaded_as} {images}")
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return Loaded(None, processor, family, path, weights, settings, positions)


def _config(settings: ModelSettings, path: str) -> Any:
    return _readable(path, lambda: AutoConfig.from_pretrained(path, revision=settings.revision))


def base_of(settings: ModelSettings) -> Base:
    """The base of a run with these settings; `model.build` builds the model first. Raises UserError."""
    path = locate(settings)
    return Base.at(path, settings)


def _with_adapter(model: Any, adapter: str, trainable: bool) -> Any:
    from peft import PeftModel

    try:
        return _readable(adapter, lambda: PeftModel.from_pretrained(model, adapter, is_trainable=trainable))
    except RuntimeError as error:  # torch: weights with other shapes
        lines = str(error).splitlines()
        first = next((line for line in lines if "mismatch" in line), lines[0]).strip()
        raise UserError(f"adapter {adapter}: it does not fit this model, but another model: {first}") from error


def _compute_dtype(settings: ModelSettings, config: Any) -> torch.dtype:
    """The dtype for computing with 4-bit weights: the model's own."""
    if settings.dtype != "auto":
        return getattr(torch, settings.dtype)
    return config.dtype or config.get_text_config().dtype or torch.float32


def dtype_name(known: Loaded) -> str:
    """The name of the dtype in which a model's weights are loaded: that of its settings, or as they are stored."""
    return str(_compute_dtype(known.settings, _config(known.settings, known.path))).removeprefix("torch.")


def load_checkpoint(path: str, settings: ModelSettings | None = None) -> Loaded:
    """Load a model folder, a Hub id, or a peft adapter's folder, which names its own base.

    `settings.revision` belongs to `settings.path`; it is not used for other repositories, which do
    not have this commit.
    """
    return checkpoint(path, settings).load()


@dataclass(frozen=True)
class ModelSource:
    """A model to load: its settings and an adapter. It can be sent to another process."""

    settings: ModelSettings
    adapter: str | None = None

    def load(self) -> Loaded:
        """Load the model. Raises UserError."""
        return load(self.settings, self.adapter)

    def load_without_weights(self) -> Loaded:
        """Load everything except the weights. Raises UserError."""
        return load_without_weights(self.settings, self.adapter)


def checkpoint(path: str, settings: ModelSettings | None = None) -> ModelSource:
    """The model source of `load_checkpoint`."""
    settings = settings or ModelSettings(name=Path(path).name)
    adapter_config = Path(path, "adapter_config.json")
    if not adapter_config.is_file():
        return ModelSource(_at(path, replace(settings, adapter=None)))
    base = json.loads(adapter_config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    return ModelSource(_at(base, settings), adapter=path)


def _at(path: str, settings: ModelSettings) -> ModelSettings:
    return replace(settings, path=path, build=None, revision=settings.revision if path == settings.path else None)


def parameters_per_tower(model: Any, family: Family) -> dict[str, dict[str, int]]:
    """{tower: {all, trainable}} parameter counts; parameters outside all towers are the output head.

    Parameters that only the reference model uses are not counted: a frozen adapter, and the original of a
    module that is trained in full.
    """
    counts: dict[str, dict[str, int]] = {}
    for name, parameter in model.named_parameters():
        if f".{FROZEN}." in name or ".original_module." in name:
            continue
        counted = counts.setdefault(family.tower_of(name) or "output_head", {"all": 0, "trainable": 0})
        counted["all"] += count(parameter)
        counted["trainable"] += count(parameter) if parameter.requires_grad else 0
    return counts


def tower_line(counts: dict[str, dict[str, int]]) -> str:
    """`parameters_per_tower` in one line."""
    towers = ", ".join(f"{tower} {of['trainable']:,} of {of['all']:,}" for tower, of in counts.items())
    return f"Parameters (trainable of all): {towers}"


def _readable(path: str, read: Any) -> Any:
    try:
        return read()
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"model {path}: cannot be loaded: {error}") from error
