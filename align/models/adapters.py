"""Several adapters on one base model: which of them computes, without changing which are trained.

peft's `set_adapter` and `disable_adapter` also change which adapters get a gradient, so a second
trained adapter (a critic) would silently stop learning after the first pass of the reference model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

RECOMPUTES = "_gradient_checkpointing_func"
"""Where transformers keeps the function that computes a checkpointed layer."""
POLICY = "default"
"""The name of the adapter that a run trains and saves; peft uses the same name."""


class Adapters:
    """The adapters of a PeftModel. Create it after the last adapter was added."""

    def __init__(self, model: Any):
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import AuxiliaryTrainingWrapper

        self.layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)]

    def activate(self, name: str) -> None:
        """From now on the adapter `name` computes; peft may have activated the one that was added last."""
        self._set([([name], False)] * len(self.layers))

    @contextlib.contextmanager
    def use(self, name: str | None) -> Iterator[None]:
        """Context in which the adapter `name` computes; with None, the base model alone."""
        before = self._state()
        self._set([([name] if name else active, name is None) for active, _ in before])
        try:
            yield
        finally:
            self._set(before)

    def _state(self) -> list[tuple[Any, bool]]:
        return [(layer._active_adapter, layer._disable_adapters) for layer in self.layers]

    def _set(self, state: list[tuple[Any, bool]]) -> None:
        for layer, (active, disabled) in zip(self.layers, state, strict=True):
            layer._active_adapter, layer._disable_adapters = active, disabled

    @contextlib.contextmanager
    def _restored(self, state: list[tuple[Any, bool]]) -> Iterator[None]:
        before = self._state()
        self._set(state)
        try:
            yield
        finally:
            self._set(before)

    def keep_in_recomputation(self, model: Any) -> None:
        """Make gradient checkpointing recompute each layer with the adapter that computed it.

        Checkpointed layers are computed again in the backward pass, when another adapter may be
        active: the gradients of a critic would silently be those of the policy's layers. Call it
        after checkpointing was switched on.
        """
        for module in model.modules():
            if getattr(module, "gradient_checkpointing", False) and hasattr(module, RECOMPUTES):
                kept = partial(getattr(module, RECOMPUTES), use_reentrant=False, context_fn=self._contexts)
                setattr(module, RECOMPUTES, kept)

    def without_dropout(self) -> None:
        """Switch off the dropout of all adapters: the policy that learns is then the one that sampled."""
        for layer in self.layers:
            for dropout in getattr(layer, "lora_dropout", {}).values():
                if isinstance(dropout, torch.nn.Dropout):
                    dropout.p = 0.0

    def _contexts(self) -> tuple[Any, Any]:
        """Torch's `context_fn`: the contexts of a layer's forward pass and of its recomputation."""
        return contextlib.nullcontext(), self._restored(self._state())
