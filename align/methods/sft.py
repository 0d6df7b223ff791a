"""Supervised fine-tuning: trl's SFTTrainer over our rows.

L = -sum log p(answer token | prompt, earlier answer tokens) / number of answer tokens, over all rows of a step (trl's `nll`).
A harmful row's answer is the safe response, a benign row's the helpful one; paper, appendix E: T-SFT and MM-SFT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from trl import SFTConfig, SFTTrainer

from align.data.collation import IGNORED, Collator
from align.data.rendering import Renderer
from align.errors import UserError
from align.methods.rows_trainer import RowsTrainer
from align.rows import Row


class SFT(RowsTrainer, SFTTrainer):
    """trl's supervised fine-tuning; only the data differs, and that the output head works where there is something to predict."""

    config_class = SFTConfig

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._supervised: torch.Tensor | None = None
        self._backbone().register_forward_hook(self._keep_supervised)

    @staticmethod
    def check_rows(rows: Sequence[Row]) -> None:
        """Raises UserError that counts and names the rows that this method cannot train on, before anything is loaded."""
        lacking = [row.id for row in rows if not (row.response or "").strip()]
        if lacking:
            raise UserError(
                f"{len(lacking)} rows have no `response`, which supervised fine-tuning needs: {', '.join(lacking[:5])}"
            )

    @staticmethod
    def collator(renderer: Renderer, arguments: Any) -> Collator:
        """What makes batches of rows."""
        return Collator(renderer, arguments.max_length, arguments.pad_to_multiple_of)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Trl's loss on the supervised positions alone.

        Without Triton trl projects every position on the vocabulary: for a row of 576 image tokens and a short refusal that is
        nearly all of the work. Hidden states and labels are therefore picked before the head; the sum is the same.
        """
        following = inputs.pop("labels")[:, 1:]
        self._supervised = following != IGNORED
        inputs["shift_labels"] = following[self._supervised][None]
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            self._supervised = None

    def _backbone(self) -> Any:
        model = self.accelerator.unwrap_model(self.model)
        return (model.get_base_model() if hasattr(model, "peft_config") else model).base_model

    def _keep_supervised(self, module: Any, inputs: Any, output: Any) -> Any:
        if self._supervised is not None:
            # (batch, length, hidden) -> (1, supervised tokens, hidden)
            output.last_hidden_state = output.last_hidden_state[:, :-1][self._supervised][None]
        return output
