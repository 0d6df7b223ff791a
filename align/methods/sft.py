"""Supervised fine-tuning: trl's SFTTrainer over our rows.

L = -sum log p(answer token | prompt, earlier answer tokens) / number of answer tokens, over all rows of a step (trl's `nll`).
A harmful row's answer is the safe response, a benign row's the helpful one; paper, appendix E: T-SFT and MM-SFT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trl import SFTConfig, SFTTrainer

from align.data.collation import Collator
from align.data.rendering import Renderer
from align.methods.rows_trainer import RowsTrainer, refuse_lacking
from align.rows import Row


class SFT(RowsTrainer, SFTTrainer):
    """trl's supervised fine-tuning; only the data differs."""

    config_class = SFTConfig

    @staticmethod
    def check_rows(rows: Sequence[Row]) -> None:
        """Raises UserError that counts and names the rows that this method cannot train on, before anything is loaded."""
        refuse_lacking(rows, ["response"], "supervised fine-tuning")

    @staticmethod
    def collator(renderer: Renderer, arguments: Any) -> Collator:
        """What makes batches of rows."""
        return Collator(renderer, arguments.max_length, arguments.pad_to_multiple_of)
