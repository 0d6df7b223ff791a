"""ORPO: supervised fine-tuning on chosen answers plus an odds ratio of chosen and rejected ones.

L    = NLL(chosen) + beta * L_OR
L_OR = -log sigmoid(log odds(chosen) - log odds(rejected)),   odds(y) = P(y) / (1 - P(y))

NLL is a mean over the chosen tokens, L_OR a mean over pairs. log P(y) is a mean over the tokens of
an answer (Hong, Lee and Thorne 2024, arXiv 2403.07691, eq. 3 to 7; beta is their lambda). There is
no reference model.
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

NEAREST = -1e-6
"""The greatest log P(y) with odds in float32: those of P(y) = 1 are infinite."""


# trl's own ORPO is experimental, and its trainer tokenises texts without images, so this method
# has trl's SFTTrainer and its configuration, with the name and default of trl's ORPOConfig.
@dataclass
class ORPOConfig(SFTConfig):
    """trl's SFTConfig, plus the weight of the odds ratio."""

    beta: float = field(default=0.1, metadata={"help": "weight of the odds-ratio loss; the paper's lambda"})


def log_odds(log_p: torch.Tensor) -> torch.Tensor:
    """log(P / (1 - P)) of log P."""
    log_p = log_p.clamp(max=NEAREST)
    return log_p - torch.log(-torch.expm1(log_p))


def orpo(log_probs: torch.Tensor, mask: torch.Tensor, config: ORPOConfig) -> dict[str, Term]:
    """The terms of L above; `log_probs` and `mask` as in `mean_log_probs`, chosen answers first."""
    chosen, rejected = log_odds(mean_log_probs(log_probs, mask)).chunk(2)
    return {
        "nll": Term(1.0, -log_probs.chunk(2)[0], "chosen", "token"),
        "odds_ratio": Term(config.beta, -logsigmoid(chosen - rejected), "chosen", "answer"),
    }


class ORPO(PairsTrainer):
    """ORPO: see the module docstring."""

    config_class = ORPOConfig

    @staticmethod
    def check_arguments(arguments: Any, config: RunConfig) -> None:
        """Raises UserError for a weight with which the loss is another method's, or none."""
        if not arguments.beta > 0:
            raise UserError(f"train.beta={arguments.beta}: expected more than 0; with 0, use method=sft")

    def terms(self, output: Any, part: torch.Tensor, reference: torch.Tensor | None) -> dict[str, Term]:
        """The terms of `orpo`."""
        terms = orpo(output.log_probs, output.label_mask, self.args)
        log_p = mean_log_probs(output.log_probs.detach(), output.label_mask)
        self.log_rewards(log_p, self.args.beta)
        chosen, rejected = log_odds(log_p).chunk(2)
        self.log_means({"log_odds_ratio": -terms["odds_ratio"].values, "log_odds_chosen": chosen - rejected})
        return terms
