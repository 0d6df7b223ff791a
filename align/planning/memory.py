"""Memory of one GPU by purpose, in bytes.

Weights, gradients and optimizer states have the run's dtypes (docs/planning.md explains how they
were found), read from the model on `meta`. With plain AdamW a trained weight has two states of its
own dtype. DeepSpeed stores everything in the model's dtype, plus a float32 copy of trained weights
with float32 states: 12 bytes, divided among the GPUs, under ZeRO-2 together with the gradients,
under ZeRO-3 also with the weights (Rajbhandari et al. 2020, arXiv 1910.02054, section 3.1 and
figure 1).

A checkpointed layer keeps its input. A layer that is being recomputed, and every layer without
checkpointing, keeps the following for each position, for width d, attention width a and MLP width
i, in the model's dtype (measured with `saved_tensors_hooks`): queries, keys, values and result of
the attention (4 a); in the language model a row of its mask (the length); the expanded MLP values
(3 i if gated, else i); float32 values of two norms (2 d). If its weights are trained, it also keeps
their inputs (4 d + i). An adapter keeps a copy of its input, its r inner values, and with dropout a
mask of one byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch

from align.errors import UserError
from align.models.quantization import OUTPUT_HEAD
from align.planning.layers import HEAD, Matrix
from align.planning.skeleton import Skeleton
from align.planning.step import Step
from align.settings import RunConfig

BITS = {"nf4": 4 + 8 / 64 + 32 / (64 * 256), "int8": 8.0}
"""Bits of a quantised weight.

nf4 has an 8-bit scale for 64 weights and a 32-bit scale for 256 of those (QLoRA, arXiv 2305.14314,
section 3). The scales of int8, one for each row, are left out.
"""
STATES = {"adamw_torch": 2.0, "adamw_torch_fused": 2.0, "sgd": 0.0}
"""{optimizer (train.optim): states of a trained weight, in its own dtype}"""
STATES_8BIT = ("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit")
"""Optimizers with two states of one byte."""
BUCKET, LIVE = 500_000_000, 1_000_000_000
"""DeepSpeed's defaults, in elements: reduce_bucket_size, stage3_max_live_parameters."""
LAUNCHES = ("ddp", "zero2", "zero3")


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    activations: float
    buffers: float
    reserve: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Held:
    """Memory of an undivided model on one GPU, in bytes, and the number of trained weights."""

    weights: float
    gradients: float
    states: float
    divided: float
    """Optimizer states and float32 copy of trained weights, as in DeepSpeed."""
    trained: int
    base: float
    """A copy of the model without an adapter."""


def held(it: Skeleton, config: RunConfig, optimizer: str) -> Held:
    """Memory of an undivided model. Raises UserError for an unknown optimizer."""
    if optimizer not in (*STATES, *STATES_8BIT):
        known = ", ".join((*STATES, *STATES_8BIT))
        raise UserError(f"train.optim={optimizer}: the memory of this optimizer is unknown. Plans support {known}")
    weights = gradients = states = base = 0.0
    trained = 0
    for name, parameter in it.model.named_parameters():
        number = parameter.numel()
        size = _bytes(it, config, name, parameter)
        weights += number * size
        base += 0 if "lora_" in name or ".modules_to_save." in name else number * size
        if parameter.requires_grad:
            trained += number
            gradients += number * size
            states += number * (2.0 if optimizer in STATES_8BIT else STATES[optimizer] * size)
    divided = trained * (4 + (2.0 if optimizer in STATES_8BIT else STATES[optimizer] * 4))
    return Held(weights, gradients, states, divided, trained, base)


def _bytes(it: Skeleton, config: RunConfig, name: str, parameter: torch.nn.Parameter) -> float:
    """Bytes of one element of a parameter."""
    if ".modules_to_save." in name:
        return 4  # modules trained in full next to an adapter are float32
    kind = config.model.quantization
    if kind is None or it.family.tower_of(name) != "language_model" or OUTPUT_HEAD in name:
        return parameter.element_size()
    if "lora_" in name:  # trl converts the adapter of a quantised model to bfloat16, but not DoRA's magnitudes
        return parameter.element_size() if "lora_magnitude_vector" in name else 2
    is_matrix = parameter.dim() == 2 and "embed_tokens" not in name
    return BITS[kind] / 8 if is_matrix else parameter.element_size()


def matrix_bytes(it: Skeleton, config: RunConfig, matrix: Matrix) -> float:
    """Bytes of one element of a matrix when it is read."""
    kind = config.model.quantization
    is_quantized = kind is not None and matrix.tower == "language_model" and not matrix.adapter
    return BITS[str(kind)] / 8 if is_quantized else it.model.dtype.itemsize


def memory(
    it: Skeleton, of: Held, config: RunConfig, step: Step, launch: str, gpus: int, activations: float, reserve: float
) -> Memory:
    """Memory of one of `gpus` GPUs under a launch configuration (ddp, zero2, zero3)."""
    copy, frozen_adapter = _reference(it, of, config, step)
    if launch == "ddp":
        buckets = of.gradients if gpus > 1 else 0.0  # DDP reduces copies of the gradients
        return Memory(of.weights, of.gradients, of.states, copy + frozen_adapter, activations, buckets, reserve)
    size = it.model.dtype.itemsize
    weights = of.base + of.trained * size if config.lora else of.base
    gradients, buckets = of.trained * size / gpus, min(of.trained, BUCKET) * size
    reference = copy + frozen_adapter
    if launch == "zero3":
        buckets += min(weights / size, LIVE) * size  # weights gathered at a time
        weights, reference = weights / gpus, reference / gpus
    return Memory(weights, gradients, of.divided / gpus, reference, activations, buckets, reserve)


def _reference(it: Skeleton, of: Held, config: RunConfig, step: Step) -> tuple[float, float]:
    """-> bytes of (a copy of the model, a frozen copy of the adapter)."""
    if step.reference is None:
        return 0.0, 0.0
    if config.lora is None:
        return of.base, 0.0
    return 0.0, (of.gradients if config.model.adapter else 0.0)


@dataclass(frozen=True)
class Activations:
    """Activations that the backward pass needs, on one GPU, in bytes."""

    kept: float
    """Inputs of all layers."""
    layers: float
    """Activations inside all layers."""
    largest: float
    """Activations inside the largest layer."""
    copies: float
    """Adapter weights in the model's dtype, kept by autocast during the forward pass."""
    outside: float
    """Float32 values of the last norm, and the head's input."""
    tiles: float
    """Temporary memory of the head: tiles of logits, float32 input and float32 weight gradient."""

    def peak(self, checkpointing: bool) -> float:
        """Peak of activations.

        With checkpointing, at the end of the forward pass or while the largest layer is recomputed.
        """
        return (
            (self.kept + max(self.largest, self.copies) if checkpointing else self.layers) + self.outside + self.tiles
        )


def activations(it: Skeleton, matrices: Sequence[Matrix], step: Step, share: float, dropout: bool) -> Activations:
    """Activations of one forward pass on one GPU, which processes `share` of a step.

    `dropout`: whether an adapter has dropout.
    """
    size = it.model.dtype.itemsize
    kept, copies, inside = [], [], []
    for _, group in groupby((m for m in matrices if m.layer and m.reached), key=lambda m: m.layer):
        layer = list(group)
        positions = share * _positions(layer[0], step)
        kept.append(positions * layer[0].inputs * size)
        copies.append(size * sum(matrix.weights for matrix in layer if matrix.adapter))
        masked = step.policy.length if layer[0].tower == "language_model" else 0
        inside.append(positions * (_inside(layer, size, dropout) + size * masked) + copies[-1])
    outside, tiles = _outside(matrices, step, share, size)
    return Activations(sum(kept), sum(inside), max(inside, default=0.0), sum(copies), outside, tiles)


def _positions(matrix: Matrix, step: Step) -> float:
    if matrix.tower == "vision_tower":
        return step.policy.images * step.image.patches
    return step.policy.sequences * step.policy.length


def _inside(layer: Sequence[Matrix], size: int, dropout: bool) -> float:
    """Bytes that a layer keeps for one position: see the module's docstring."""
    own = [matrix for matrix in layer if not matrix.adapter]
    width, expanded = own[0].inputs, own[-1].inputs
    is_gated = sum(matrix.inputs == width and matrix.outputs == expanded for matrix in own if not matrix.attention) > 1
    kept = size * (4 * max(matrix.attention for matrix in own) + (3 if is_gated else 1) * expanded) + 2 * 4 * width
    if any(matrix.trained for matrix in own):
        kept += size * (4 * width + expanded)
    for matrix in layer:
        if matrix.adapter and "lora_A" in matrix.name:
            kept += size * (matrix.inputs + matrix.outputs) + dropout * matrix.inputs
    return kept


def _outside(matrices: Sequence[Matrix], step: Step, share: float, size: int) -> tuple[float, float]:
    """-> `outside` and `tiles` of `Activations`."""
    from trl.kernels.chunked_divergence import VOCAB_CHUNK_SIZE
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    from align.fast.supervised_head import TRLS_TILE  # the tile of GPUs, even if the plan is made on a CPU

    head = next(matrix for matrix in matrices if matrix.tower == HEAD)
    positions = share * step.policy.sequences * step.policy.length
    supervised, compared = share * step.policy.supervised, share * step.divergence
    tiles = min(supervised, TRLS_TILE) * min(head.outputs, _CHUNKED_LOGPROB_CHUNK_SIZE) * size
    if compared:
        tiles = max(tiles, 2 * min(compared, TRLS_TILE) * min(head.outputs, VOCAB_CHUNK_SIZE) * 4)
    passing = supervised * head.inputs * 4 + head.trained * head.weights * 4
    return (4 * positions + size * supervised) * head.inputs, passing + tiles


def fits(of: Memory, limit: float) -> bool:
    """Whether it fits into `limit` GiB."""
    return of.total <= limit * 2**30


def in_gib(of: Memory) -> dict[str, Any]:
    """Each part and the total in GiB, rounded to 0.01."""
    return {part: round(size / 2**30, 2) for part, size in (asdict(of) | {"total": of.total}).items()}
