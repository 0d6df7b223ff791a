"""Supervised fine-tuning: trl's SFTTrainer on the rows of this project.

L = -sum log p(answer token | prompt, earlier answer tokens) / number of answer tokens

Both sums are over all rows of a step (trl's `nll`). The answer of a harmful row is a safe response,
and the answer of a benign row is a helpful response; paper, appendix E: T-SFT and MM-SFT.
"""

from __future__ import annotations

from typing import Any

from trl import SFTConfig, SFTTrainer

from align.batches.collators import Collator
from align.batches.rendering import Renderer
from align.methods.trainer import RowsTrainer, refuse_lacking
from align.rows import Row


class SFT(RowsTrainer, SFTTrainer):
    """trl's supervised fine-tuning; only the data differs."""

    config_class = SFTConfig

    @classmethod
    def check_row(cls, row: Row) -> None:
        """Raises BadRow for a row that this method cannot train on."""
        refuse_lacking(row, ["response"], "supervised fine-tuning")

    @staticmethod
    def collator(renderer: Renderer, arguments: Any) -> Collator:
        """The collator that makes batches of rows."""
        collator = Collator(renderer, arguments.max_length, arguments.pad_to_multiple_of)
        collator.trains_history = True
        return collator
