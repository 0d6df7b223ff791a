"""Preference losses without a reference model, on pairs of a chosen and a rejected answer.

A method is a pure function of both answers' log-probabilities that names its terms
(align/methods/terms.py). Losses of trl's DPO, which has a reference model, are `method=dpo
train.loss_type=<name>`.
"""

from __future__ import annotations

from typing import Any

import torch
from trl import SFTConfig

from align.batches.collators import PAIR, PairsCollator
from align.batches.rendering import Renderer
from align.methods.terms import TermsLoss
from align.methods.trainer import RowsTrainer, refuse_lacking, refuse_same
from align.rows import Row


class PairsTrainer(RowsTrainer, TermsLoss):
    """trl's SFTTrainer on pairs, with a loss of named terms.

    A method is a subclass with its `terms`, on the parts `chosen` and `rejected`.
    """

    config_class: type = SFTConfig
    part_names = PAIR
    inert = {"loss_type": "the loss is the method's own"}

    @classmethod
    def check_row(cls, row: Row) -> None:
        """Raises BadRow for a row without two different answers."""
        refuse_lacking(row, PAIR, cls.__name__)
        refuse_same(row, *PAIR)

    @classmethod
    def collator(cls, renderer: Renderer, arguments: Any) -> PairsCollator:
        """The chosen answers of all rows, then the rejected ones."""
        return PairsCollator(renderer, arguments.max_length, arguments.pad_to_multiple_of)

    def log_rewards(self, log_probs: torch.Tensor, beta: float) -> None:
        """Log what trl logs of pairs: log-probabilities (2 x pairs,), and rewards, beta times these."""
        chosen, rejected = log_probs.float().chunk(2)
        self.log_means(
            {
                "logps/chosen": chosen,
                "logps/rejected": rejected,
                "rewards/chosen": beta * chosen,
                "rewards/rejected": beta * rejected,
                "rewards/accuracies": (chosen > rejected).float(),
                "rewards/margins": beta * (chosen - rejected),
            }
        )


def mean_log_probs(log_probs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean log-probability per token of each answer (answers,).

    `log_probs` and `mask` (answers, length - 1), log_probs 0 where nothing is supervised.
    """
    return log_probs.sum(1) / mask.sum(1)
