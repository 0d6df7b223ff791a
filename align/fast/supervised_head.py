"""Compute the output head only at supervised positions.

Without Triton, trl's fused head projects every position onto the vocabulary. For a row of 576 image
tokens and a short refusal, that is nearly all of the work. So hidden states and labels are selected
before the head, and its results are scattered back to their positions. On a CPU,
align/fast/frozen_head.py computes a frozen head; trl computes every other head.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import is_triton_available
from trl.kernels import chunked_logprob
from trl.trainer.utils import FusedCausalLMOutput

from align.batches.padding import IGNORED
from align.fast.frozen_head import head_of
from align.fast.images_once import ImageReuse, ImagesOnce
from align.fast.model_inputs import laid_out

PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
"""Fields of trl's `FusedCausalLMOutput` that hold a value per position."""

TRLS_TILE = chunked_logprob.TOKEN_CHUNK_SIZE
TILE = 128
"""Tokens that trl's head computes at a time without Triton: 16 MB of logits in fp32. trl's
default of 4,096 takes four times the memory for 750 tokens (perf/results/head.json). `align
plan` is about GPUs, which keep trl's default.
"""
if not is_triton_available():
    chunked_logprob.TOKEN_CHUNK_SIZE = TILE


@dataclass(frozen=True)
class Computed:
    """The amount of computation in one forward pass on one process."""

    rows: int
    length: int
    images: int
    patches: int
    """Number of patches of all images, if it depends on the image size (Qwen2-VL); otherwise 0."""
    supervised: int
    is_policy: bool
    """Whether a backward pass follows; otherwise the pass is the reference model's."""
    logits_again: bool = True
    """Whether the backward pass computes the head's logits again."""


@dataclass
class ScoredOutput(FusedCausalLMOutput):
    """trl's output, and what a scalar head computes."""

    scalars: torch.Tensor | None = None
    """(batch, length - 1, outputs): a scalar head on the hidden state that predicts each supervised
    token; 0 elsewhere. Not `values`: DDP calls the method of that name on the output."""


@dataclass(frozen=True)
class Scalar:
    """A scalar head (align/models/scalar_head.py) and its adapter."""

    adapter: Callable[[], contextlib.AbstractContextManager[None]]
    """A context in which its adapter computes."""
    head: torch.nn.Module


class SupervisedHead:
    """Wraps a model's fused forward: the same outputs, computed only at supervised positions.

    A `layout` in the batch defines where the model computes each token (align/batches/layout.py).
    Labels and outputs always refer to the padded rows.

    `hidden` (supervised tokens, hidden size), row by row, is the head's input in the last forward.

    `policy` is the policy's head, if this head belongs to a copy of its model (the reference
    model). Both are computed in the same way, so equal models give equal numbers.
    """

    def __init__(self, model: Any, reuse: ImageReuse | None = None, policy: SupervisedHead | None = None):
        self.projection = model.get_output_embeddings()
        self._decides = policy or self
        self.hidden = torch.empty(0)
        self.images = ImagesOnce(model.base_model, reuse)
        self._model = model
        self._picked: torch.Tensor | None = None
        self.scalars: dict[str, Scalar] = {}
        """The scalar heads by name: `forward(..., fused_lm_head=True, scalar=<name>)` computes one too."""
        self.passes: list[Computed] = []
        """The forward passes so far. The caller that reads this list empties it."""
        self._fused = model.forward
        model.base_model.register_forward_hook(self._pick)

        @functools.wraps(type(model).forward)  # `generate` checks its arguments against the signature
        def forward(_: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
            if not fused_lm_head:
                return self._fused(*args, **kwargs)
            return self._on_supervised(**kwargs)

        model.forward = types.MethodType(forward, model)

    @property
    def trained(self) -> bool:
        """Whether any parameter of the head is trained, including those of an adapter."""
        return any(parameter.requires_grad for parameter in self.projection.parameters())

    def _on_supervised(
        self,
        *,
        labels: torch.Tensor,
        layout: dict[str, torch.Tensor] | None = None,
        scalar: str | None = None,
        log_probs: bool = True,
        **inputs: Any,
    ) -> Any:
        """`scalar` names a scalar head to compute too; without `log_probs`, it alone is computed."""
        following = labels[:, 1:]
        supervised = following != IGNORED
        layout = layout or {}
        if layout:
            inputs = laid_out(self._model, inputs, layout)
        picked = layout.get("predicts", torch.nn.functional.pad(supervised, (0, 1)).flatten().nonzero()[:, 0])
        with self._picking(picked, layout):
            output = self._log_probs(following[supervised], inputs) if log_probs else FusedCausalLMOutput()
            values = None if scalar is None else self._values(self.scalars[scalar], inputs)
        for name in PER_TOKEN:
            found = getattr(output, name)
            if found is not None:
                # (1, supervised tokens) -> (batch, length - 1)
                setattr(output, name, found.new_zeros(supervised.shape).masked_scatter(supervised, found))
        output.label_mask = supervised
        if values is None:
            return output
        places = supervised[..., None].expand(*supervised.shape, values.size(1))
        return ScoredOutput(**output, scalars=values.new_zeros(places.shape).masked_scatter(places, values))

    @contextlib.contextmanager
    def _picking(self, picked: torch.Tensor, layout: dict[str, torch.Tensor]) -> Iterator[None]:
        """Context in which the model's hidden states are those of the `picked` positions."""
        self.images.order, self.images.keys = layout.get("images"), layout.get("image_keys")
        self._picked = picked
        try:
            yield
        finally:
            self._picked = None
            self.images.order = self.images.keys = None

    def _log_probs(self, targets: torch.Tensor, inputs: dict[str, Any]) -> Any:
        """Trl's output for the supervised tokens alone, (1, supervised tokens)."""
        self.images.encoded = (0, 0)
        with head_of(self._decides.trained) as head:
            output = self._fused(shift_labels=targets[None], fused_lm_head=True, **inputs)
        self._count(inputs, len(targets), head.logits_again)
        return output

    def _values(self, scalar: Scalar, inputs: dict[str, Any]) -> torch.Tensor:
        """A scalar head on the hidden states of its adapter (supervised tokens, outputs)."""
        self.images.encoded = (0, 0)
        with scalar.adapter():
            hidden = self._model.base_model(**inputs | {"use_cache": False}).last_hidden_state[0]
        self._count(inputs, 0, False)
        with torch.autocast(hidden.device.type, enabled=False):
            return scalar.head(hidden.to(next(scalar.head.parameters()).dtype))

    def _count(self, inputs: dict[str, Any], supervised: int, logits_again: bool) -> None:
        rows, length = inputs["input_ids"].shape
        is_policy = torch.is_grad_enabled()
        self.passes.append(Computed(rows, length, *self.images.encoded, supervised, is_policy, logits_again))

    def _pick(self, module: Any, inputs: Any, output: Any) -> Any:
        if self._picked is not None:
            self.hidden = output.last_hidden_state.flatten(0, 1)[self._picked]
            output.last_hidden_state = self.hidden[None]
        return output
