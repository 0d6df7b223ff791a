"""The reference model of a run: what it began from. One base in memory wherever an adapter is trained.

| trained | its reference |
|---|---|
| a fresh adapter | the model with the adapter switched off |
| an adapter that was trained before | that adapter, frozen, as a second adapter on the same base |
| the model itself | a copy of it |
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

FROZEN = "ref"
"""The name of the frozen adapter; trl's own."""
ADAPTER_OFF = "adapter switched off"
CONTINUED = "the adapter it continues, frozen"
COPY = "a copy of the model"


def add_frozen_copy(model: Any) -> None:
    """The adapter of a PeftModel as it is now, once more and frozen. trl's DPO makes one too; it is then brought up to date."""
    if FROZEN not in model.peft_config:
        model.add_adapter(FROZEN, model.peft_config["default"])
    for name, parameter in list(model.named_parameters()):
        if ".default." in name:
            frozen = model.get_parameter(name.replace(".default.", f".{FROZEN}."))
            frozen.data = parameter.detach().clone()
            frozen.requires_grad_(False)


def kind_of_reference(is_adapter: bool, is_continued: bool) -> str:
    """Which reference model a run has, in words: it trains an adapter or all of the model, and may continue an adapter."""
    if not is_adapter:
        return COPY
    return CONTINUED if is_continued else ADAPTER_OFF


@contextlib.contextmanager
def reference_of(model: Any, copy: Any = None) -> Iterator[Any]:
    """The reference to call, without gradients and dropout: `copy` where there is one, else the PeftModel with another adapter or none."""
    from trl.trainer.utils import use_adapter

    reference = model if copy is None else copy
    adapter = (
        contextlib.nullcontext()
        if copy is not None
        else use_adapter(model, FROZEN if FROZEN in model.peft_config else None)
    )
    training = reference.training
    reference.eval()  # a frozen adapter has the dropout that it was trained with
    try:
        with torch.no_grad(), adapter:
            yield reference
    finally:
        reference.train(training)
