"""Memory of one GPU, by what it is for, in bytes.

Weights, gradients and optimizer states are of the types that the run has (docs/planning.md says how that was found), read off the model
on `meta`. With plain AdamW a trained weight has two states of its own type. DeepSpeed holds everything in the model's type, and beside it
a float32 copy of what is trained with float32 states: 12 bytes, divided among the GPUs under ZeRO-2 with the gradients, under ZeRO-3 with
the weights too (Rajbhandari et al. 2020, arXiv 1910.02054, section 3.1 and figure 1).

A checkpointed layer keeps its input. The one that is being computed again, and every layer without checkpointing, keeps for each position
of a model of width d with attention width a and MLP width i, in the type of the model (as torch saves it for the backward pass, seen by
`saved_tensors_hooks`): queries, keys, values and result of the attention (4 a), in the language model a row of its mask (the length),
what the MLP expands to (3 i where it is gated, else i), and of two norms what they compute in float32 (2 d). Where its weights are
trained, what they multiply as well (4 d + i); an adapter keeps a copy of its input, its r inner values, and with dropout a mask of a byte.
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
"""Of a quantised weight: nf4 has an 8-bit scale for 64 weights and a 32-bit one for 256 of those (QLoRA, arXiv 2305.14314, section 3);
the scales of int8, one a row, are left out."""
STATES = {"adamw_torch": 2.0, "adamw_torch_fused": 2.0, "sgd": 0.0}
"""Optimizer (train.optim) -> states of a trained weight, of its own type."""
STATES_8BIT = ("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit")
"""The same with two states of a byte."""
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
        """All of them."""
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Held:
    """What a model holds on one GPU where nothing is divided, in bytes; and how many weights are trained."""

    weights: float
    gradients: float
    states: float
    divided: float
    """Optimizer states and the float32 copy of what is trained, as DeepSpeed keeps them."""
    trained: int
    base: float
    """The model as it is, without an adapter: what a copy of it needs."""


def held(it: Skeleton, config: RunConfig, optimizer: str) -> Held:
    """Raises UserError for an optimizer whose states are not known here."""
    if optimizer not in (*STATES, *STATES_8BIT):
        known = ", ".join((*STATES, *STATES_8BIT))
        raise UserError(f"train.optim={optimizer}: a plan knows the memory of {known} only")
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
    """Of one number of a parameter."""
    if ".modules_to_save." in name:
        return 4  # held in float32 beside an adapter
    kind = config.model.quantization
    if kind is None or it.family.tower_of(name) != "language_model" or OUTPUT_HEAD in name:
        return parameter.element_size()
    if "lora_" in name:  # trl brings the adapter of a quantised model to bfloat16, but not DoRA's magnitudes
        return parameter.element_size() if "lora_magnitude_vector" in name else 2
    is_matrix = parameter.dim() == 2 and "embed_tokens" not in name
    return BITS[kind] / 8 if is_matrix else parameter.element_size()


def memory(
    it: Skeleton, of: Held, config: RunConfig, step: Step, launch: str, gpus: int, activations: float, reserve: float
) -> Memory:
    """Of one of `gpus` GPUs under a launch configuration (ddp, zero2, zero3)."""
    copy, frozen_adapter = _reference(it, of, config, step)
    if launch == "ddp":
        buckets = of.gradients if gpus > 1 else 0.0  # DDP reduces copies of the gradients
        return Memory(of.weights, of.gradients, of.states, copy + frozen_adapter, activations, buckets, reserve)
    size = it.model.dtype.itemsize
    weights = of.base + of.trained * size if config.lora else of.base
    gradients, buckets = of.trained * size / gpus, min(of.trained, BUCKET) * size
    reference = copy + frozen_adapter
    if launch == "zero3":
        buckets += min(weights / size, LIVE) * size  # what is gathered at a time
        weights, reference = weights / gpus, reference / gpus
    return Memory(weights, gradients, of.divided / gpus, reference, activations, buckets, reserve)


def _reference(it: Skeleton, of: Held, config: RunConfig, step: Step) -> tuple[float, float]:
    """(A copy of the model, a frozen copy of the adapter), in bytes: align/models/reference.py."""
    if step.reference is None:
        return 0.0, 0.0
    if config.lora is None:
        return of.base, 0.0
    return 0.0, (of.gradients if config.model.adapter else 0.0)


@dataclass(frozen=True)
class Activations:
    """What the backward pass needs of the forward pass on one GPU, in bytes."""

    kept: float
    """The inputs of all layers."""
    layers: float
    """What is inside of all of them."""
    largest: float
    """What is inside of the one that keeps most."""
    copies: float
    """The adapter's weights in the model's type, which autocast keeps until the forward pass is over."""
    outside: float
    """What the last norm computes in float32, and what the head is given."""
    tiles: float
    """What the head makes and lets go: tiles of logits, float32 of what it is given and of the gradient of its weights."""

    def peak(self, checkpointing: bool) -> float:
        """What is held where most is: with checkpointing at the end of the forward pass, or where the largest layer is computed again."""
        return (
            (self.kept + max(self.largest, self.copies) if checkpointing else self.layers) + self.outside + self.tiles
        )


def activations(it: Skeleton, matrices: Sequence[Matrix], step: Step, share: float, dropout: bool) -> Activations:
    """`share` is the part of a step that one forward pass on one GPU takes; `dropout`, whether an adapter has it."""
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
    """Bytes that a layer keeps for one position: see the module."""
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
    """As `Activations` has them."""
    from trl.kernels.chunked_divergence import VOCAB_CHUNK_SIZE
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    from align.fast.supervised_head import TRLS_TILE  # a GPU's, wherever the plan is made

    head = next(matrix for matrix in matrices if matrix.tower == HEAD)
    positions = share * step.policy.sequences * step.policy.length
    supervised, compared = share * step.policy.supervised, share * step.divergence
    tiles = min(supervised, TRLS_TILE) * min(head.outputs, _CHUNKED_LOGPROB_CHUNK_SIZE) * size
    if compared:
        tiles = max(tiles, 2 * min(compared, TRLS_TILE) * min(head.outputs, VOCAB_CHUNK_SIZE) * 4)
    passing = supervised * head.inputs * 4 + head.trained * head.weights * 4
    return (4 * positions + size * supervised) * head.inputs, passing + tiles


def fits(of: Memory, limit: float) -> bool:
    """Whether it is within a GPU's memory, in GiB."""
    return of.total <= limit * 2**30


def in_gib(of: Memory) -> dict[str, Any]:
    """Each part and the total in GiB, to a hundredth."""
    return {part: round(size / 2**30, 2) for part, size in (asdict(of) | {"total": of.total}).items()}
