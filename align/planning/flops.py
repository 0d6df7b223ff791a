"""FLOPs of an optimizer step; a multiplication and an addition count as two.

A matrix of n weights applied to T positions costs 2 n T in the forward pass. The backward pass
costs the same again for the gradient of its input, if an earlier layer needs one, and the same for
the gradient of its weights, if they are trained. If its layer is checkpointed, it costs one more
forward pass. (Kaplan et al. 2020, arXiv 2001.08361, table 1, gives 6 N per token for training
everything, without checkpointing.) Attention of width d over L positions costs 4 L^2 d per layer
forward (queries by keys, weights by values; the full square, as in kernels with a mask), and twice
that backward. The head processes only supervised positions, twice forward if its kernel recomputes
logits in the backward pass (`Pass.logits_again`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from align.planning.layers import HEAD, Matrix
from align.planning.step import Pass, Step

DENSE = {"A100": 312e12, "H100": 989e12, "H200": 989e12}
"""{part of a GPU's name: FLOP/s in bfloat16 without sparsity} (NVIDIA's data sheets, SXM)."""


@dataclass
class Flops:
    """FLOPs by operation."""

    forward: float = 0.0
    recomputed: float = 0.0
    backward: float = 0.0
    reference: float = 0.0
    prefill: float = 0.0
    """Of sampled responses: their prompts (align/planning/rollouts.py)."""
    decoding: float = 0.0
    """Of sampled responses: their tokens."""
    scored: float = 0.0
    """Passes without gradient over sampled responses: policy, critic, reward models."""
    critic: float = 0.0
    """The critic's training."""

    @property
    def total(self) -> float:
        """Sum of all FLOPs."""
        return sum(getattr(self, field.name) for field in fields(self))


def flops(matrices: Sequence[Matrix], step: Step, checkpointing: bool, reference_has_adapter: bool = False) -> Flops:
    """FLOPs of one optimizer step over all GPUs.

    `reference_has_adapter` is true if the run continues an adapter.
    """
    spent = Flops()
    for matrix in matrices:
        if matrix.tower == HEAD:
            _head(spent, matrix, step)
            continue
        once = _forward(matrix, step, step.policy)
        spent.forward += once
        spent.recomputed += once if checkpointing and matrix.recomputed else 0.0
        spent.backward += _backward(matrix, step, step.policy)
        if step.reference and (reference_has_adapter or not matrix.adapter):
            spent.reference += _forward(matrix, step, step.reference)
    return spent


def forward_of(matrices: Sequence[Matrix], step: Step, of: Pass) -> float:
    """FLOPs of a forward pass with the adapter; the output head processes its supervised positions."""
    inner = sum(_forward(matrix, step, of) for matrix in matrices if matrix.tower != HEAD)
    return inner + sum(2.0 * matrix.weights * of.supervised for matrix in matrices if matrix.tower == HEAD)


def _positions(matrix: Matrix, step: Step, of: Pass) -> float:
    if matrix.tower == "vision_tower":
        return of.images * step.image.patches
    if matrix.tower == "multi_modal_projector":
        return of.images * step.image.tokens
    return of.sequences * of.length


def _square(matrix: Matrix, step: Step, of: Pass) -> float:
    """FLOPs of the attention that begins with a matrix; each image attends only to itself."""
    if matrix.tower == "vision_tower":
        return 4.0 * of.images * step.image.patches**2 * matrix.attention
    return 4.0 * of.sequences * of.length**2 * matrix.attention


def _forward(matrix: Matrix, step: Step, of: Pass) -> float:
    return 2.0 * matrix.weights * _positions(matrix, step, of) + _square(matrix, step, of)


def _backward(matrix: Matrix, step: Step, of: Pass) -> float:
    if not matrix.reached:
        return 0.0
    gradients = matrix.input_gradient + matrix.trained
    return gradients * 2.0 * matrix.weights * _positions(matrix, step, of) + 2.0 * _square(matrix, step, of)


def _head(spent: Flops, head: Matrix, step: Step) -> None:
    a_position = 2.0 * head.weights
    # Log-probabilities of all responses; when distributions are compared, policy and reference
    # again.
    spent.forward += a_position * (step.policy.supervised + 2 * step.divergence)
    spent.recomputed += a_position * (step.policy.supervised * step.policy.logits_again + 2 * step.divergence)
    spent.backward += a_position * (step.policy.supervised + step.divergence) * (1 + head.trained)
    if step.reference:
        spent.reference += a_position * step.reference.supervised
