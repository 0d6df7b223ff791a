"""What a run trains: a new adapter, an existing adapter, or towers in full; only what the settings request."""

from __future__ import annotations

from typing import Any

import torch

from align.config.merge import Composed
from align.errors import UserError
from align.families import FAMILIES, TOWERS, Family
from align.models.lora import lora_config
from align.models.quantization import refuse_dora_in_int8
from align.settings import RunConfig

FULL_BY_DEFAULT = ["language_model", "multi_modal_projector"]
"""Towers that full fine-tuning trains by default; like LLaVA's own training, not the vision tower."""


def check_trainable(composed: Composed) -> None:
    """Raise UserError for settings that contradict each other or have no effect, before anything is loaded."""
    config: RunConfig = composed.config
    unknown = [tower for tower in config.trainable if tower not in TOWERS]
    if unknown:
        raise UserError(f"trainable: unknown tower {unknown[0]!r}; expected one of {', '.join(TOWERS)}")
    if config.lora is None:
        _check_full(config)
    elif config.model.adapter or config.start:
        _check_continued(composed)
    else:
        refuse_dora_in_int8(config.model.quantization, config.lora.use_dora)
        twice = [tower for tower in config.trainable if tower in config.lora.towers]
        if twice:
            raise UserError(
                f"trainable and lora.towers both name {twice[0]}, but a tower either gets an adapter or is trained in "
                "full; remove it from one of the two"
            )
        if "language_model" in config.trainable:
            raise UserError(
                "trainable=language_model with an adapter would keep a second language model in memory; to train it in "
                "full, set lora=null"
            )


def _check_full(config: RunConfig) -> None:
    if config.model.quantization:
        raise UserError(
            f"model.quantization={config.model.quantization} with lora=null: quantized weights cannot be trained; "
            f"train an adapter, or set model.quantization=null"
        )
    if config.model.adapter:
        raise UserError(
            f"model.adapter={config.model.adapter} with lora=null: an adapter can only be trained as an adapter; "
            f"remove lora=null, or merge it first: align merge checkpoint={config.model.adapter} output_dir=<folder>, "
            "then model=<folder>"
        )


def _check_continued(composed: Composed) -> None:
    # A model file contains defaults for the model; only a recipe or an argument is a request for this run.
    given = [
        key for key, of in composed.origins.items() if key.startswith("lora.") and of.kind in ("recipe", "argument")
    ]
    if composed.config.trainable:
        given.append("trainable")
    if given:
        raise UserError(
            f"{composed.origin(given[0])}: {given[0]} has no effect, because the run continues "
            f"{'start' if composed.config.start else 'model.adapter'}="
            f"{composed.config.start or composed.config.model.adapter}; remove one of the two"
        )


def choose_trainable(model: Any, family: Family, config: RunConfig) -> Any:
    """Peft's configuration of a new adapter; None for a continued adapter, or after freezing all
    but the trained towers.

    Raises UserError for a model whose towers are unknown.
    """
    if not family.known:
        raise UserError(
            f"model {config.model.name}: the model type {family.model_type!r} can be evaluated but not trained; "
            f"trainable families are {', '.join(FAMILIES)}; docs/adding.md explains how to add a family "
            "(model.family=module:name)"
        )
    if config.model.adapter:
        return None
    if config.lora is None:
        _freeze_all_but(model, family, config.trainable or FULL_BY_DEFAULT)
        return None
    in_full = [module for tower in config.trainable for module in modules_of(model, family, tower)]
    return lora_config(model, family, config.lora, in_full)


def _freeze_all_but(model: Any, family: Family, towers: list[str]) -> None:
    for name, parameter in model.named_parameters():
        # Parameters outside all towers are the output head, which is trained with the language model.
        parameter.requires_grad_((family.tower_of(name) or "language_model") in towers)


def modules_of(model: Any, family: Family, tower: str) -> list[str]:
    """Names of the largest modules that together contain a tower's parameters and no other parameters.

    Qwen2-VL's projector is inside its vision module, so its vision tower is several modules. A ModuleList
    has no forward pass, so its children are named instead.
    """

    def within(name: str, module: torch.nn.Module) -> list[str]:
        towers = {family.tower_of(f"{name}.{parameter}") for parameter, _ in module.named_parameters()}
        if tower not in towers:
            return []
        if towers == {tower} and not isinstance(module, torch.nn.ModuleList):
            return [name]
        return [found for child, it in module.named_children() for found in within(f"{name}.{child}", it)]

    return [found for child, it in model.named_children() for found in within(child, it)]


def refuse_short_weights(model: Any, config: RunConfig) -> None:
    """Raise UserError for full fine-tuning of 16-bit weights: most AdamW updates are below the
    resolution of these weights.

    DeepSpeed and FSDP2 keep a float32 copy of trained weights. A single process and DDP do not.
    """
    if config.lora is None and any(map(_is_short, model.parameters())):
        raise UserError(
            f"lora=null with model.dtype={config.model.dtype}: most weight updates would round to zero. Launch the "
            "run with DeepSpeed, which keeps a float32 copy (accelerate_configs/zero2.yaml or zero3.yaml, also on "
            "one GPU), or set model.dtype=float32"
        )


def hold_towers_in_float32(model: Any) -> None:
    """Keep towers that are trained in full next to an adapter in float32, like the adapter itself;
    these towers are small.
    """
    for name, parameter in model.named_parameters():
        if _is_short(parameter) and ".modules_to_save." in name:
            parameter.data = parameter.data.float()


def _is_short(parameter: torch.nn.Parameter) -> bool:
    return parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16)


def freeze_without_images(model: Any, family: Family, config: RunConfig) -> list[str]:
    """Freeze image towers for a run without images, where they get no gradient; return the frozen towers.

    The defaults of full fine-tuning, and a continued adapter, may include such towers. Raises UserError if
    the settings name one.
    """
    towers = [
        t for t in ("multi_modal_projector", "vision_tower") if any(p.requires_grad for p in _of(model, family, t))
    ]
    asked_for = {"trainable": config.trainable, "lora.towers": config.lora.towers if config.lora else []}
    for tower in towers:
        for key, named in asked_for.items():
            if tower in named and not config.model.adapter:
                raise UserError(
                    f"{key} names {tower}, but none of the training rows has an image (view={config.view}), so it "
                    f"would get no gradient; remove it from {key}, or train on images"
                )
        for parameter in _of(model, family, tower):
            parameter.requires_grad_(False)
    return towers


def _of(model: Any, family: Family, tower: str) -> list[torch.nn.Parameter]:
    return [parameter for name, parameter in model.named_parameters() if family.tower_of(name) == tower]
