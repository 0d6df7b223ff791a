"""Safe unlearning: NPO (negative preference optimisation) on harmful answers, NLL on all others.

L = L_g + gamma * L_s + alpha * L_h,  alpha = gamma = 0.3
L_g, L_s = NLL of benign and of safe answers, a mean over tokens
L_h = -scale * mean over answers of log sigmoid(-beta * (m_theta - m_reference))

m is the log-probability of the harmful answer (Zhang et al. 2024, arXiv 2407.02855; paper,
appendix E: T-SafeUnlearning).

`logp` defines m: the `mean` over the answer's tokens, as in the authors' code, or their `sum`. The
NPO of Zhang, Lin, Bai and Mei (2024, arXiv 2404.05868, eq. 4) uses the sum and scale = 2 / beta.
The authors' code has no such factor: scale = 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from align.batches.parts import PARTS
from align.errors import UserError
from align.methods.terms import Term
from align.methods.unlearning_base import PartsConfig, PartsTrainer
from align.settings import RunConfig

LOGP = ("mean", "sum")


@dataclass
class SafeUnlearningConfig(PartsConfig):
    """trl's SFTConfig, plus the constants of the loss."""

    alpha: float = field(default=0.3, metadata={"help": "weight of L_h, the loss on harmful answers"})
    gamma: float = field(
        default=0.3, metadata={"help": "weight of L_s, the loss on safe answers (the authors' script: 0.5)"}
    )
    beta: float = field(default=1.0, metadata={"help": "inverse temperature of L_h"})
    logp: str = field(default="mean", metadata={"help": "mean | sum of the log-probabilities of an answer's tokens"})
    scale: float = field(default=1.0, metadata={"help": "factor of L_h; for NPO set 2 / beta, with logp=sum"})


def safe_unlearning(
    log_probs: torch.Tensor,
    reference: torch.Tensor,
    mask: torch.Tensor,
    part: torch.Tensor,
    config: SafeUnlearningConfig,
) -> dict[str, Term]:
    """The terms of L above.

    `log_probs` and `mask` (answers, length - 1), log_probs 0 where nothing is supervised; `part`
    (answers,); `reference` (harmful answers, length - 1).
    """
    is_harmful = part == PARTS.index("harmful")
    ratio = log_probs[is_harmful].sum(1) - reference.sum(1)
    if config.logp == "mean":
        ratio = ratio / mask[is_harmful].sum(1)
    return {
        "harmful": Term(config.alpha, -config.scale * logsigmoid(-config.beta * ratio), "harmful", "answer"),
        "safe": Term(config.gamma, -log_probs[part == PARTS.index("safe")], "safe", "token"),
        "benign": Term(1.0, -log_probs[part == PARTS.index("benign")], "benign", "token"),
    }


class SafeUnlearning(PartsTrainer):
    """Safe unlearning: see the module docstring."""

    config_class = SafeUnlearningConfig
    reference_part = "harmful"
    storable = None

    @staticmethod
    def check_arguments(arguments: Any, config: RunConfig) -> None:
        """Raises UserError for constants with which this loss is a different one, or none."""
        PartsTrainer.check_arguments(arguments, config)
        if arguments.logp not in LOGP:
            raise UserError(f"train.logp={arguments.logp}: expected {' or '.join(LOGP)}")
        for name in ("beta", "scale"):
            if not getattr(arguments, name) > 0:
                raise UserError(f"train.{name}={getattr(arguments, name)}: expected more than 0")

    def terms(self, output: Any, part: torch.Tensor, reference: Any) -> dict[str, Term]:
        """The terms of `safe_unlearning`."""
        return safe_unlearning(output.log_probs, reference, output.label_mask, part, self.args)
