"""What a run trains: a fresh adapter, one that it continues, towers in full. Nothing else, and nothing unasked."""

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
"""What full fine-tuning trains where nothing else is said; as LLaVA's own does, not the vision tower."""


def check_trainable(composed: Composed) -> None:
    """Raises UserError for settings that contradict each other or would have no effect, before anything is loaded."""
    config: RunConfig = composed.config
    unknown = [tower for tower in config.trainable if tower not in TOWERS]
    if unknown:
        raise UserError(f"trainable: {unknown[0]!r} is none of {', '.join(TOWERS)}")
    if config.lora is None:
        _check_full(config)
    elif config.model.adapter:
        _check_continued(composed)
    else:
        refuse_dora_in_int8(config.model.quantization, config.lora.use_dora)
        twice = [tower for tower in config.trainable if tower in config.lora.towers]
        if twice:
            raise UserError(
                f"trainable and lora.towers both name {twice[0]}: a tower gets an adapter or is trained in full; remove it from one"
            )
        if "language_model" in config.trainable:
            raise UserError(
                "trainable=language_model beside an adapter would keep a second language model in memory; "
                "lora=null trains it in full"
            )


def _check_full(config: RunConfig) -> None:
    if config.model.quantization:
        raise UserError(
            f"model.quantization={config.model.quantization} with lora=null: quantised weights cannot be trained; "
            f"train an adapter on them, or set model.quantization=null"
        )
    if config.model.adapter:
        raise UserError(
            f"model.adapter={config.model.adapter} with lora=null: an adapter is continued as an adapter; leave lora as it is, or make "
            f"a model of it first: align merge checkpoint={config.model.adapter} output_dir=<folder>, then model=<folder>"
        )


def _check_continued(composed: Composed) -> None:
    # A model's file says what is usual for it; a recipe, or an argument, says what is wanted of this run.
    given = [
        key for key, of in composed.origins.items() if key.startswith("lora.") and of.kind in ("recipe", "argument")
    ]
    if composed.config.trainable:
        given.append("trainable")
    if given:
        raise UserError(
            f"{composed.origin(given[0])}: {given[0]} would have no effect: what is trained is said by "
            f"model.adapter={composed.config.model.adapter}; remove one of the two"
        )


def choose_trainable(model: Any, family: Family, config: RunConfig) -> Any:
    """Peft's configuration of a fresh adapter; None where the model is ready: an adapter on it, or all frozen but what is trained.

    Raises UserError for a model whose towers are not known.
    """
    if not family.known:
        raise UserError(
            f"model {config.model.name}: its type {family.model_type!r} is none of the families that can be trained "
            f"({', '.join(FAMILIES)}), only evaluated; docs/adding.md says how to add one (model.family=module:name)"
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
        # What belongs to no tower is the output head, which goes with the language model.
        parameter.requires_grad_((family.tower_of(name) or "language_model") in towers)


def modules_of(model: Any, family: Family, tower: str) -> list[str]:
    """Names of the largest modules that together hold a tower's parameters and no other's.

    Qwen2-VL's projector lies inside its vision module, so that the vision tower is several modules there. Lists of modules have
    no forward pass of their own and are named by what they hold.
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
    """Raises UserError for full fine-tuning of 16-bit weights: most of AdamW's updates are smaller than what such a weight can tell apart.

    DeepSpeed and FSDP2 keep a float32 copy of what is trained. Nobody does for one process, or where each holds the whole model.
    """
    if config.lora is None and any(map(_is_short, model.parameters())):
        raise UserError(
            f"lora=null with model.dtype={config.model.dtype}: most updates would round to nothing. Launch it with DeepSpeed, which "
            f"keeps a float32 copy (accelerate_configs/zero2.yaml or zero3.yaml, on one GPU too), or say model.dtype=float32"
        )


def hold_towers_in_float32(model: Any) -> None:
    """Likewise of towers that are trained in full beside an adapter, which are small: in float32, as peft holds the adapter itself."""
    for name, parameter in model.named_parameters():
        if _is_short(parameter) and ".modules_to_save." in name:
            parameter.data = parameter.data.float()


def _is_short(parameter: torch.nn.Parameter) -> bool:
    return parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16)


def freeze_without_images(model: Any, family: Family, config: RunConfig) -> list[str]:
    """Freeze what reads images, for a run whose rows have none: it would get no gradient -> the towers that were to be trained.

    Full fine-tuning's default and a continued adapter hold such towers unasked. Raises UserError for one that was asked for.
    """
    towers = [
        t for t in ("multi_modal_projector", "vision_tower") if any(p.requires_grad for p in _of(model, family, t))
    ]
    asked_for = {"trainable": config.trainable, "lora.towers": config.lora.towers if config.lora else []}
    for tower in towers:
        for key, named in asked_for.items():
            if tower in named and not config.model.adapter:
                raise UserError(
                    f"{key} names {tower}, and none of the training rows has an image (view={config.view}): it would get no gradient and "
                    f"stay what it is; remove it from {key}, or train on images"
                )
        for parameter in _of(model, family, tower):
            parameter.requires_grad_(False)
    return towers


def _of(model: Any, family: Family, tower: str) -> list[torch.nn.Parameter]:
    return [parameter for name, parameter in model.named_parameters() if family.tower_of(name) == tower]
