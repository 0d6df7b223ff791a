"""FLOPs that a run has computed, forward and backward, by the formula of a plan (flops.py).

MFU is the share of the device's peak FLOP/s, without recomputed layers (Chowdhery et al. 2022,
arXiv 2204.02311, appendix B). It counts what is computed: a prompt shared by two responses counts
once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import fields

import torch
from transformers.integrations import deepspeed

from align.config.merge import Composed
from align.fast.supervised_head import Computed
from align.planning.flops import DENSE, Flops, flops
from align.planning.images import ImageTokens, image_tokens, side_of
from align.planning.layers import matrices
from align.planning.skeleton import skeleton
from align.planning.step import Pass, Step, checkpoints_activations

NOTHING = Pass(0, 0, 0, 0)


class Spending:
    """Counts the FLOPs of a run's passes."""

    def __init__(self, composed: Composed, with_images: bool):
        self.checkpointing = checkpoints_activations(composed.config)
        self.has_adapter = bool(composed.config.model.adapter)
        self.compares = composed.config.method == "unlearning"
        with _undivided():
            self.it = skeleton(composed, with_images)
        self.settings = composed.config.model
        self.matrices = matrices(self.it, self.checkpointing)

    def of(self, passes: Sequence[Computed]) -> Flops:
        """Total FLOPs of some passes."""
        total = Flops()
        for one in passes:
            spent = flops(self.matrices, self._step(one), self.checkpointing, self.has_adapter)
            for field in fields(Flops):
                setattr(total, field.name, getattr(total, field.name) + getattr(spent, field.name))
        return total

    def _step(self, one: Computed) -> Step:
        these = Pass(one.rows, one.length, one.images, one.supervised, one.logits_again)
        if one.is_policy:
            return Step(0, self._image(one), these, None, 0.0)
        # When distributions are compared, both heads process the reference's positions.
        return Step(0, self._image(one), NOTHING, these, one.supervised if self.compares else 0.0)

    def _image(self, one: Computed) -> ImageTokens:
        if not one.images:
            return ImageTokens(0, 0)
        if one.patches:
            each, merge = one.patches / one.images, self.it.config.vision_config.spatial_merge_size
            return ImageTokens(round(each), round(each / merge**2))
        size = side_of(self.it.config.vision_config)
        return image_tokens(self.it.config, self.settings, f"{size}x{size}")


@contextlib.contextmanager
def _undivided() -> Iterator[None]:
    """Turn off ZeRO-3 in transformers, which would divide every new model.

    `meta` models cannot be.
    """
    there = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = there


def peak_of_device() -> float | None:
    """Peak FLOP/s of this process's GPU; None without a GPU, or for an unknown one."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in DENSE.items() if part in name), None)
