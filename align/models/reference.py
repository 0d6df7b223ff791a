"""The reference model of a run: the model before training. If an adapter is trained, only one base is in memory.

| trained | its reference model |
|---|---|
| a new adapter | the model with the adapter switched off |
| an existing adapter | a frozen copy of this adapter, as a second adapter on the same base |
| the model itself | a copy of the model |
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from align.models.adapters import Adapters

FROZEN = "ref"
"""The name of the frozen adapter; trl uses the same name."""
ADAPTER_OFF = "adapter switched off"
CONTINUED = "the adapter it continues, frozen"
COPY = "a copy of the model"


def add_frozen_copy(model: Any) -> None:
    """Add a frozen copy of a PeftModel's current adapter. If trl's DPO has added one already, update it."""
    if FROZEN not in model.peft_config:
        model.add_adapter(FROZEN, model.peft_config["default"])
    for name, parameter in list(model.named_parameters()):
        if ".default." in name:
            frozen = model.get_parameter(name.replace(".default.", f".{FROZEN}."))
            frozen.data = parameter.detach().clone()
            frozen.requires_grad_(False)


def kind_of_reference(is_adapter: bool, is_continued: bool) -> str:
    """Which reference model a run has, in words: it trains an adapter or all of the model, and may
    continue an adapter.
    """
    if not is_adapter:
        return COPY
    return CONTINUED if is_continued else ADAPTER_OFF


@contextlib.contextmanager
def reference_of(model: Any, copy: Any = None) -> Iterator[Any]:
    """The reference model, without gradients and dropout: `copy`, or the PeftModel with the frozen
    adapter or no adapter.
    """
    reference = model if copy is None else copy
    adapter = (
        contextlib.nullcontext()
        if copy is not None
        else Adapters(model).use(FROZEN if FROZEN in model.peft_config else None)
    )
    with adapter, asked_only(reference):  # a frozen adapter still has its dropout
        yield reference


@contextlib.contextmanager
def asked_only(model: Any) -> Iterator[None]:
    """A model without gradients and dropout."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
