"""Which modules get an adapter: a pattern per tower, resolved on the real model and refused where it is not what was asked for."""

from __future__ import annotations

from typing import Any

import torch

from align.errors import UserError
from align.models.families import TOWERS, Family
from align.settings import Lora


def target_modules(model: Any, family: Family, settings: Lora) -> list[str]:
    """Full names of the linear layers that get an adapter.

    Names are resolved here rather than given to peft as suffixes, because the vision towers share the names of the language
    model's layers (`q_proj`) and would get adapters unasked. Raises UserError where a tower is unknown or a name matches nothing.
    """
    unknown = [tower for tower in settings.towers if tower not in TOWERS]
    if unknown:
        raise UserError(f"lora.towers: {unknown[0]!r} is none of {', '.join(TOWERS)}")
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    matched = [
        n for n in linear if n.rpartition(".")[2] in settings.target_modules and family.tower_of(n) in settings.towers
    ]
    for tower in settings.towers:
        if not any(family.tower_of(name) == tower for name in matched):
            there = sorted({name.rpartition(".")[2] for name in linear if family.tower_of(name) == tower})
            raise UserError(
                f"lora.target_modules {list(settings.target_modules)} match nothing in {tower}; its linear layers: {', '.join(there)}"
            )
    for suffix in settings.target_modules:
        if not any(name.rpartition(".")[2] == suffix for name in matched):
            raise UserError(f"lora.target_modules: {suffix!r} matches no linear layer of {', '.join(settings.towers)}")
    return matched


def lora_config(model: Any, family: Family, settings: Lora) -> Any:
    """Peft's LoraConfig for exactly the modules asked for."""
    from peft import LoraConfig

    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=target_modules(model, family, settings),
        task_type="CAUSAL_LM",
    )
