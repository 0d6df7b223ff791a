"""The output head works where there is something to predict.

Without Triton trl's fused head projects every position on the vocabulary: for a row of 576 image tokens and a short refusal that is
nearly all of the work. Hidden states and labels are therefore picked before the head, and its results put back into their places.
On a CPU a frozen head is computed by align/fast/frozen_head.py; every other head is trl's.
"""

from __future__ import annotations

import functools
import types
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import is_triton_available
from trl.kernels import chunked_logprob

from align.batches.padding import IGNORED
from align.fast.frozen_head import head_of
from align.fast.images_once import ImageReuse, ImagesOnce
from align.fast.model_inputs import laid_out

PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
"""Fields of trl's `FusedCausalLMOutput` that hold a value per position."""

TRLS_TILE = chunked_logprob.TOKEN_CHUNK_SIZE
TILE = 128
"""Tokens that trl's head takes at a time without Triton, 16 MB of logits in fp32. Its own 4,096 take four times the memory for 750 tokens
(perf/results/head.json). A plan is of GPUs, which keep trl's.
"""
if not is_triton_available():
    chunked_logprob.TOKEN_CHUNK_SIZE = TILE


@dataclass(frozen=True)
class Computed:
    """One forward pass on one process."""

    rows: int
    length: int
    images: int
    patches: int
    """Of all images together, where their number hangs on the image (Qwen2-VL); else 0."""
    supervised: int
    is_policy: bool
    """Whether a backward pass follows it; else it is the reference's."""
    logits_again: bool = True
    """Whether that backward pass computes the head's logits again."""


class SupervisedHead:
    """Wraps a model's forward, after trl has put its fused head there: the same outputs, from the supervised positions alone.

    A `layout` in the batch says where the model computes these (align/batches/layout.py); labels and outputs are of the padded rows.

    `hidden` is what the last such forward gave the head: (supervised tokens, hidden size), row by row.

    `policy` is the head of the policy, where this one is of a copy of its model: both are computed in the same way, so that equal
    models give equal numbers.
    """

    def __init__(self, model: Any, reuse: ImageReuse | None = None, policy: SupervisedHead | None = None):
        self.projection = model.get_output_embeddings()
        self._decides = policy or self
        self.hidden = torch.empty(0)
        self.images = ImagesOnce(model.base_model, reuse)
        self._model = model
        self._picked: torch.Tensor | None = None
        self.passes: list[Computed] = []
        """What was computed; whoever asks for it empties it."""
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
        """Whether any parameter of the head is trained, its own or an adapter's."""
        return any(parameter.requires_grad for parameter in self.projection.parameters())

    def _on_supervised(
        self, *, labels: torch.Tensor, layout: dict[str, torch.Tensor] | None = None, **inputs: Any
    ) -> Any:
        following = labels[:, 1:]
        supervised = following != IGNORED
        layout = layout or {}
        if layout:
            inputs = laid_out(self._model, inputs, layout)
        self.images.order, self.images.keys = layout.get("images"), layout.get("image_keys")
        self.images.encoded = (0, 0)
        self._picked = layout.get("predicts", torch.nn.functional.pad(supervised, (0, 1)).flatten().nonzero()[:, 0])
        rows, length = inputs["input_ids"].shape
        try:
            with head_of(self._decides.trained) as head:
                output = self._fused(shift_labels=following[supervised][None], fused_lm_head=True, **inputs)
        finally:
            predicted, self._picked = len(self._picked), None
            self.images.order = self.images.keys = None
        self.passes.append(
            Computed(rows, length, *self.images.encoded, predicted, torch.is_grad_enabled(), head.logits_again)
        )
        for name in PER_TOKEN:
            picked = getattr(output, name)
            if picked is not None:
                # (1, supervised tokens) -> (batch, length - 1)
                setattr(output, name, picked.new_zeros(supervised.shape).masked_scatter(supervised, picked))
        output.label_mask = supervised
        return output

    def _pick(self, module: Any, inputs: Any, output: Any) -> Any:
        if self._picked is not None:
            self.hidden = output.last_hidden_state.flatten(0, 1)[self._picked]
            output.last_hidden_state = self.hidden[None]
        return output
