"""Unlearning: gradient ascent on harmful answers, descent on safe ones, KL on benign ones.

L = harmful_weight * NLL(harmful answer) + safe_weight * NLL(safe answer)
    + kl_weight * KL(p_reference || p_theta) on benign answers

Each term is a mean over tokens; the weights are -0.5, 1, 1 (Chakraborty et al. 2024, arXiv
2406.02575; paper, appendix E: T-Unlearning). The KL term keeps the reference model's distribution
on benign answers. The first term has no lower bound, so a run stops when NLL(harmful answer)
exceeds `max_harmful_loss`. The original code stops at 100.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from align.batches.parts import PARTS
from align.errors import UserError
from align.methods.terms import Term
from align.methods.unlearning_base import PartsConfig, PartsTrainer
from align.settings import RunConfig


@dataclass
class UnlearningConfig(PartsConfig):
    """trl's SFTConfig, plus the weights of the terms."""

    harmful_weight: float = field(
        default=-0.5, metadata={"help": "weight of NLL(harmful answer); below 0: gradient ascent"}
    )
    safe_weight: float = field(default=1.0, metadata={"help": "weight of NLL(safe answer)"})
    kl_weight: float = field(default=1.0, metadata={"help": "weight of KL(p_reference || p_theta) on benign answers"})
    max_harmful_loss: float = field(
        default=100.0, metadata={"help": "training stops when NLL(harmful answer), per token, exceeds this"}
    )


def unlearning(
    log_probs: torch.Tensor, part: torch.Tensor, kl: torch.Tensor, config: UnlearningConfig
) -> dict[str, Term]:
    """The terms of L above.

    `log_probs` (answers, length - 1), 0 where nothing is supervised; `part` (answers,); `kl`
    (benign tokens,).
    """
    harmful, safe = log_probs[part == PARTS.index("harmful")], log_probs[part == PARTS.index("safe")]
    return {
        "harmful": Term(config.harmful_weight, -harmful, "harmful", "token"),
        "safe": Term(config.safe_weight, -safe, "safe", "token"),
        "kl": Term(config.kl_weight, kl, "benign", "token"),
    }


class Unlearning(PartsTrainer):
    """Unlearning: see the module docstring.

    The divergence is over the whole vocabulary. trl's kernel computes it without holding all
    logits.
    """

    config_class = UnlearningConfig
    reference_part = "benign"
    storable = "it compares whole distributions with the reference model's, which are too large to cache"

    @staticmethod
    def check_arguments(arguments: Any, config: RunConfig) -> None:
        """Raises UserError for a bound that is not above 0."""
        PartsTrainer.check_arguments(arguments, config)
        if not arguments.max_harmful_loss > 0:
            raise UserError(f"train.max_harmful_loss={arguments.max_harmful_loss}: expected more than 0")

    def terms(self, output: Any, part: torch.Tensor, reference: Any) -> dict[str, Term]:
        """The terms of `unlearning`; `reference` (benign tokens, hidden size)."""
        rows = part[:, None].expand_as(output.label_mask)[output.label_mask]
        hidden = self.head.hidden[rows == PARTS.index("benign")]
        student, teacher = self.head.projection, self.reference_head.projection
        kl = ChunkedDivergenceFunction.apply(
            hidden, student.weight, student.bias, reference, teacher.weight, teacher.bias, 0.0
        )[0]
        return unlearning(output.log_probs, part, kl, self.args)

    def ask_reference(self, batch: dict[str, Any]) -> torch.Tensor:
        """The input of the reference model's output head (benign tokens, hidden size)."""
        super().ask_reference(batch)
        return self.reference_head.hidden

    def beyond_bound(self) -> str | None:
        """Why training stops after this step; None to continue."""
        loss = self.step_terms["harmful"]
        if loss <= self.args.max_harmful_loss:
            return None
        return f"NLL(harmful answer) is {loss:.1f}, above train.max_harmful_loss={self.args.max_harmful_loss:g}"
