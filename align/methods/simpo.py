"""SimPO: the mean log-probability of chosen answers exceeds that of rejected ones by a margin.

L = -log sigmoid(beta * (log P(chosen) - log P(rejected)) - gamma)

log P is a mean over the tokens of an answer, and L a mean over pairs (Meng, Xia and Chen 2024,
arXiv 2405.14734, eq. 6). There is no reference model.

As in trl, `label_smoothing` is the share of pairs that are assumed to be in the wrong order, and
`cpo_alpha` the weight of NLL(chosen), a mean over tokens. SimPO has neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from trl import SFTConfig

from align.errors import UserError
from align.methods.preference_base import PairsTrainer, mean_log_probs
from align.methods.terms import Term
from align.settings import RunConfig


# trl's SimPO is a loss type of its experimental CPOTrainer, which tokenises texts without images.
# So this method has trl's SFTTrainer and its configuration, with the names of trl's CPOConfig.
@dataclass
class SimPOConfig(SFTConfig):
    """trl's SFTConfig, plus the constants of the loss. Defaults are trl's, but `cpo_alpha` is 0."""

    beta: float = field(default=0.1, metadata={"help": "factor of the difference of mean log-probabilities"})
    simpo_gamma: float = field(default=0.5, metadata={"help": "target margin, after the factor beta"})
    label_smoothing: float = field(default=0.0, metadata={"help": "assumed share of pairs in the wrong order"})
    cpo_alpha: float = field(default=0.0, metadata={"help": "weight of NLL(chosen); SimPO has none"})


def simpo(log_probs: torch.Tensor, mask: torch.Tensor, config: SimPOConfig) -> dict[str, Term]:
    """The terms of L above; `log_probs` and `mask` as in `mean_log_probs`, chosen answers first."""
    chosen, rejected = mean_log_probs(log_probs, mask).chunk(2)
    margin = config.beta * (chosen - rejected) - config.simpo_gamma
    wrong = config.label_smoothing
    rank = -(1 - wrong) * logsigmoid(margin) - wrong * logsigmoid(-margin)
    terms = {"rank": Term(1.0, rank, "chosen", "answer")}
    if config.cpo_alpha:
        terms["nll"] = Term(config.cpo_alpha, -log_probs.chunk(2)[0], "chosen", "token")
    return terms


class SimPO(PairsTrainer):
    """SimPO: see the module docstring."""

    config_class = SimPOConfig

    @staticmethod
    def check_arguments(arguments: Any, config: RunConfig) -> None:
        """Raises UserError for constants with which this loss is a different one, or none."""
        if not arguments.beta > 0:
            raise UserError(f"train.beta={arguments.beta}: expected more than 0")
        if not 0 <= arguments.label_smoothing < 0.5:
            raise UserError(f"train.label_smoothing={arguments.label_smoothing}: expected 0 or more, below 0.5")
        for name in ("simpo_gamma", "cpo_alpha"):
            if not getattr(arguments, name) >= 0:
                raise UserError(f"train.{name}={getattr(arguments, name)}: expected 0 or more")

    def terms(self, output: Any, part: torch.Tensor, reference: torch.Tensor | None) -> dict[str, Term]:
        """The terms of `simpo`."""
        self.log_rewards(mean_log_probs(output.log_probs, output.label_mask), self.args.beta)
        return simpo(output.log_probs, output.label_mask, self.args)
