"""A run's model without weights, on torch's `meta` device, with the run's trainable parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from align.config.merge import Composed
from align.errors import NoModelConfig, UserError
from align.families import Family, family_of
from align.models.loading import DTYPES, locate, parameters_per_tower
from align.models.presence import folder_of
from align.models.quantization import check_kind
from align.models.trainable import check_trainable, choose_trainable, freeze_without_images
from align.settings import ModelSettings

SHIPPED = Path(__file__).parent / "configs"
"""Published config.json files of the shipped models (tests/support/full_size.py)."""
NAMED = (
    *("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf"),
    *("Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2-VL-7B-Instruct"),
    *("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-VL-4B-Instruct"),
)


@dataclass
class Skeleton:
    """A model of any size without memory for weights."""

    model: Any
    family: Family
    config: Any

    @property
    def towers(self) -> dict[str, dict[str, int]]:
        """Parameters of each tower, all and trainable."""
        return parameters_per_tower(self.model, self.family)


def bare(settings: ModelSettings, configs: str | None = None) -> Skeleton:
    """The base model, completely trainable. Raises UserError.

    `configs` is a folder that is searched first for the model's folder.
    """
    path = _stored(locate(settings), configs)
    config = _config(path, settings)
    if settings.dtype not in DTYPES:
        raise UserError(f"model.dtype={settings.dtype}: expected one of {', '.join(DTYPES)}")
    check_kind(settings.quantization)
    dtype = DTYPES[settings.dtype]
    if dtype == "auto":
        dtype = config.dtype or config.get_text_config().dtype or torch.float32
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return Skeleton(model, family_of(config.model_type, settings.family), config)


def skeleton(composed: Composed, with_images: bool, configs: str | None = None) -> Skeleton:
    """The model of a run with its adapter and frozen parts.

    Raises the same UserErrors as the run.
    """
    from peft import PeftConfig, get_peft_model

    check_trainable(composed)
    config = composed.config
    it = bare(config.model, configs)
    peft_config = choose_trainable(it.model, it.family, config)
    if config.model.adapter:
        try:
            peft_config = PeftConfig.from_pretrained(config.model.adapter)
        except (OSError, ValueError) as error:
            raise UserError(
                f"model.adapter={config.model.adapter}: cannot read its adapter_config.json: {error}"
            ) from error
        peft_config.inference_mode = False
    if peft_config is not None:
        with torch.device("meta"):
            it = replace(it, model=get_peft_model(it.model, peft_config))
    if not with_images:
        freeze_without_images(it.model, it.family, config)
    return it


def _stored(path: str, configs: str | None) -> str:
    """A model's folder in `configs`, named by the last part of its path; else the run's own path.

    If the path is on the Hub and in a shipped model file, the package has its config.json.
    """
    name = path.rstrip("/").rpartition("/")[2]
    if configs and Path(configs, name, "config.json").is_file():
        return str(Path(configs, name))
    shipped = SHIPPED / name
    return str(shipped) if folder_of(path) is None and shipped.is_dir() and path in NAMED else path


def _config(path: str, settings: ModelSettings) -> Any:
    revision = settings.revision if path == settings.path else None
    try:  # cached files are read without a request to the Hub
        return AutoConfig.from_pretrained(folder_of(path, revision) or path, revision=revision)
    except (OSError, ValueError) as error:
        raise NoModelConfig(
            f"model {settings.name or path}: cannot read its config.json from {path}. A plan needs only that file, no "
            "weights. Give model.path=<folder with config.json> or plan.configs=<folder of such folders>, or download "
            f"the model (align fetch) or the file (hf download {path} config.json)."
        ) from error
