"""Which modules get an adapter: patterns per tower, resolved on the loaded model and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from align.errors import UserError
from align.families import TOWERS, Family
from align.settings import Lora

ALL_LINEAR = "all-linear"


def target_modules(model: Any, family: Family, settings: Lora) -> list[str]:
    """Full names of the linear layers that get an adapter.

    Names are resolved here and not passed to peft as suffixes: vision towers use the same layer names as the
    language model (`q_proj`) and would get adapters too. Raises UserError if a tower is unknown or a name
    matches nothing.
    """
    unknown = [tower for tower in settings.towers if tower not in TOWERS]
    if unknown:
        raise UserError(f"lora.towers: unknown tower {unknown[0]!r}; expected one of {', '.join(TOWERS)}")
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    patterns = {entry: _pattern(entry, settings.towers) for entry in settings.target_modules}
    found = {
        entry: [name for name in linear if family.tower_of(name) in towers and _fits(pattern, name)]
        for entry, (towers, pattern) in patterns.items()
    }
    wanted = {name for names in found.values() for name in names}
    matched = [name for name in linear if name in wanted]
    for entry, (asked, pattern) in patterns.items():
        elsewhere = Counter(family.tower_of(name) for name in linear if _fits(pattern, name))
        towers = [tower for tower in elsewhere if tower is not None and tower not in settings.towers]
        if towers and asked == settings.towers and not found[entry]:
            raise UserError(
                f"lora.target_modules: {entry!r} matches no linear layer of {', '.join(settings.towers)}, but "
                + ", ".join(f"{elsewhere[tower]} of {tower}" for tower in towers)
                + f"; to adapt these too, set lora.towers={','.join([*settings.towers, *towers])}"
            )
    for tower in settings.towers:
        if not any(family.tower_of(name) == tower for name in matched):
            there = sorted({name.rpartition(".")[2] for name in linear if family.tower_of(name) == tower})
            raise UserError(
                f"lora.target_modules: {list(settings.target_modules)} match no linear layer of {tower}; its layers "
                f"are {', '.join(there)}"
            )
    for entry, (asked, _) in patterns.items():
        if not found[entry]:
            there = sorted({name.rpartition(".")[2] for name in linear if family.tower_of(name) in asked})
            raise UserError(
                f"lora.target_modules: {entry!r} matches no linear layer of {', '.join(asked)}; its layers are "
                f"{', '.join(there)}"
            )
    return matched


def _pattern(entry: str, towers: list[str]) -> tuple[list[str], str]:
    """`<tower>:<pattern>`, or a pattern for all of `towers` -> (its towers, the pattern). Raises UserError."""
    tower, colon, pattern = entry.rpartition(":")
    if not colon:
        return towers, pattern
    if tower not in TOWERS:
        raise UserError(
            f"lora.target_modules: {entry!r} names the unknown tower {tower!r}; expected one of {', '.join(TOWERS)}"
        )
    if tower not in towers:
        raise UserError(
            f"lora.target_modules: {entry!r} is for {tower}, which is not in lora.towers={','.join(towers)}; to adapt "
            f"it too, set lora.towers={','.join([*towers, tower])}"
        )
    return [tower], pattern


def _fits(pattern: str, name: str) -> bool:
    return pattern == ALL_LINEAR or f".{name}".endswith(f".{pattern}")


def lora_config(model: Any, family: Family, settings: Lora, in_full: Sequence[str] = ()) -> Any:
    """Peft's LoraConfig for exactly the selected modules, and for modules trained in full next to the adapter."""
    from peft import LoraConfig

    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        modules_to_save=list(in_full) or None,
        target_modules=target_modules(model, family, settings),
        task_type="CAUSAL_LM",
    )
