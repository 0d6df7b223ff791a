"""Log-probabilities of a frozen output head, and their gradient in the same pass.

With W the head's weights, h a hidden state, z = W h, p = softmax(z) and t the target:

    log p_t = z_t - log sum_j exp(z_j)        d log p_t / dh = W_t - sum_j p_j W_j

If W is not trained, the forward pass computes this gradient while it has the logits, and the
backward pass is one multiplication by the incoming gradient. trl computes the logits again in the
backward pass; without Triton it makes about twenty passes over them.

Tokens and vocabulary are both split into tiles, and the softmax statistics are relative to the
largest logit so far (Milakov and Gimelshein 2018, arXiv 1805.02867), so no tensor has the size
tokens x vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from trl.kernels import ChunkedLogProbFunction
from trl.trainer import utils

TOKENS, WORDS = 1024, 2048
"""Size of a tile. Two tiles in fp32 take 16 MiB. On a CPU, fewer tokens are slower, and more
words are not faster."""

Fields = tuple[torch.Tensor | None, ...]
"""log_probs, entropy, log_sum_sq_probs, mean_logits, is_top1 of trl's `FusedCausalLMOutput`:
(tokens,) each, or None."""


def unsuited(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    temperature: float,
    softcap: float | None,
    scale: float,
) -> str | None:
    """Why trl's head must compute these log-probabilities; None if this module can."""
    reasons = {
        "not on a CPU": hidden.device.type != "cpu",  # GPUs have Triton's kernel; other devices were not measured
        "trained": weight.requires_grad,
        "bias": bias is not None,
        "temperature": temperature != 1,
        "softcap": softcap is not None,
        "scale": scale != 1,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


class Head:
    """Replaces `ChunkedLogProbFunction` in trl's fused forward.

    `trained`: the head has trained parameters.
    """

    def __init__(self, trained: bool):
        self.trained = trained
        self.logits_again = True
        """Whether the backward pass computes the logits again, as in trl."""

    def apply(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        temperature: float,
        chunk_size: int,
        softcap: float | None,
        scale: float,
        outputs: Sequence[str],
    ) -> Fields:
        """The arguments and results of trl's function.

        `hidden` (tokens, hidden size), `weight` (vocabulary, hidden size), `bias` (vocabulary,),
        `targets` (tokens,).
        """
        if self.trained or unsuited(hidden, weight, bias, temperature, softcap, scale):
            return ChunkedLogProbFunction.apply(
                hidden, weight, bias, targets, temperature, chunk_size, softcap, scale, outputs
            )
        self.logits_again = False
        if torch.is_grad_enabled() and hidden.requires_grad:
            return _Differentiable.apply(hidden, weight, targets, outputs)
        return log_probs_of(hidden, weight, targets, outputs, _compute_dtype(hidden))[0]


@contextlib.contextmanager
def head_of(trained: bool) -> Iterator[Head]:
    """Context in which trl's fused forward computes log-probabilities with a `Head`."""
    head = Head(trained)
    utils._ChunkedLogProbFunction = head
    try:
        yield head
    finally:
        utils._ChunkedLogProbFunction = ChunkedLogProbFunction


def _compute_dtype(hidden: torch.Tensor) -> torch.dtype:
    """The dtype of the logits, as in trl: autocast's, or else the dtype of the hidden states."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def log_probs_of(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    outputs: Sequence[str],
    dtype: torch.dtype,
    with_gradient: bool = False,
) -> tuple[Fields, torch.Tensor | None]:
    """(log_probs and the fields in `outputs`; d log_probs / d hidden (tokens, hidden size), fp32).

    `hidden` (tokens, hidden size), `weight` (vocabulary, hidden size), `targets` (tokens,).
    Products are computed in `dtype` and sums in fp32. Without `with_gradient`, None replaces the
    gradient. The log-probabilities are bitwise the same with and without it, so a policy and a
    reference model that are the same model agree exactly.
    """
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        found = _Running(hidden.to(dtype), targets, outputs, with_gradient)
        for first in range(0, len(weight), WORDS):
            found.add_words(weight[first : first + WORDS].to(dtype), first)
        return found.fields(len(weight)), found.gradient(weight, dtype)


class _Running:
    """Softmax statistics of each token over the vocabulary tiles so far."""

    def __init__(self, hidden: torch.Tensor, targets: torch.Tensor, outputs: Sequence[str], with_gradient: bool):
        self.hidden, self.targets, self.outputs = hidden, targets, outputs
        zero = torch.zeros(len(hidden), dtype=torch.float32, device=hidden.device)
        self.largest, self.largest_before_target = torch.full_like(zero, -torch.inf), torch.full_like(zero, -torch.inf)
        self.target_logit, self.sum_logits = zero.clone(), zero.clone()
        # Sums of exp(z - largest), its square, its product with z, and its product with the words'
        # vectors.
        self.sum_exp, self.sum_square, self.sum_weighted = zero.clone(), zero.clone(), zero.clone()
        self.weighted_words = torch.zeros_like(hidden, dtype=torch.float32) if with_gradient else None
        self.logits = hidden.new_empty(min(len(hidden), TOKENS), WORDS)
        self.exps = torch.empty_like(self.logits, dtype=torch.float32)

    def add_words(self, words: torch.Tensor, first: int) -> None:
        """Add `words` (words, hidden size), which begin at vocabulary index `first`."""
        wide = words.float()
        for start in range(0, len(self.hidden), TOKENS):
            self._add_tile(slice(start, start + TOKENS), words, wide, first)

    def _add_tile(self, here: slice, words: torch.Tensor, wide: torch.Tensor, first: int) -> None:
        hidden = self.hidden[here]
        z = torch.mm(hidden, words.t(), out=self.logits[: len(hidden), : len(words)]).float()
        self._find_targets(here, z, first)
        largest = torch.maximum(self.largest[here], z.amax(1))
        shrink = torch.exp(self.largest[here] - largest)
        self.largest[here] = largest
        exps = torch.sub(z, largest[:, None], out=self.exps[: len(hidden), : len(words)]).exp_()
        self.sum_exp[here].mul_(shrink).add_(exps.sum(1))
        if self.weighted_words is not None:
            self.weighted_words[here].mul_(shrink[:, None]).addmm_(exps, wide)
        if "mean_logits" in self.outputs:
            self.sum_logits[here].add_(z.sum(1))
        if "entropy" in self.outputs:
            self.sum_weighted[here].mul_(shrink).add_(z.mul_(exps).sum(1))
        if "log_sum_sq_probs" in self.outputs:
            self.sum_square[here].mul_(shrink.square()).add_(exps.square_().sum(1))

    def _find_targets(self, here: slice, z: torch.Tensor, first: int) -> None:
        """Record the logits of this tile's targets, and the largest logit before each target."""
        local = self.targets[here] - first
        rows = ((local >= 0) & (local < z.size(1))).nonzero()[:, 0]
        logits, local = z[rows], local[rows, None]
        self.target_logit[here][rows] = logits.gather(1, local)[:, 0]
        if "is_top1" in self.outputs:
            not_before = torch.arange(z.size(1), device=z.device) >= local
            before = logits.masked_fill_(not_before, -torch.inf).amax(1)
            self.largest_before_target[here][rows] = torch.maximum(self.largest[here][rows], before)

    def fields(self, vocabulary: int) -> Fields:
        """The fields over the whole vocabulary."""
        log_sum = self.largest + self.sum_exp.log()
        # If logits are equal, the first is the prediction, as in `argmax`.
        is_top1 = (self.target_logit >= self.largest) & (self.target_logit > self.largest_before_target)
        optional = {
            "entropy": log_sum - self.sum_weighted / self.sum_exp,
            "log_sum_sq_probs": self.sum_square.log() - 2 * self.sum_exp.log(),
            "mean_logits": self.sum_logits / vocabulary,
            "is_top1": is_top1,
        }
        return (self.target_logit - log_sum, *(optional[name] if name in self.outputs else None for name in optional))

    def gradient(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
        """W_t - sum_j p_j W_j (tokens, hidden size)."""
        if self.weighted_words is None:
            return None
        return self.weighted_words.div_(-self.sum_exp[:, None]).add_(weight[self.targets].to(dtype))


class _Differentiable(torch.autograd.Function):
    """The fields. As in trl, only log_probs and entropy have a gradient for the hidden states."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, outputs: Sequence[str]
    ) -> Fields:
        ctx.set_materialize_grads(False)
        ctx.dtype = _compute_dtype(hidden)
        fields, gradient = log_probs_of(hidden, weight, targets, outputs, ctx.dtype, with_gradient=True)
        ctx.save_for_backward(hidden, weight, targets, gradient)
        ctx.mark_non_differentiable(*(field for field in fields[2:] if field is not None))
        return fields

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_log_probs: torch.Tensor | None, of_entropy: torch.Tensor | None, *_: Any) -> Any:
        hidden, weight, targets, gradient = ctx.saved_tensors
        total = None if of_log_probs is None else gradient * of_log_probs[:, None]
        if of_entropy is not None:
            through_entropy = _through_entropy(hidden.to(ctx.dtype), weight, targets, of_entropy)
            total = through_entropy if total is None else total + through_entropy
        return None if total is None else total.to(hidden.dtype), None, None, None


def _through_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, of_entropy: torch.Tensor
) -> torch.Tensor:
    """The gradient of `hidden` through the entropy, computed by trl.

    No loss of this project uses it, so the forward pass does not prepare it.
    """
    hidden = hidden.detach().requires_grad_()
    with (
        torch.enable_grad(),
        torch.autocast(hidden.device.type, enabled=False),
        utils.maybe_gather_lm_head_ctx(weight),
    ):
        entropy = ChunkedLogProbFunction.apply(hidden, weight, None, targets, 1.0, WORDS, None, 1.0, ("entropy",))[1]
        return torch.autograd.grad(entropy, hidden, of_entropy)[0]
