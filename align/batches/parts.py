"""Batches of unlearning: harmful, safe and benign responses in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from align.batches.collators import Collator, row_of
from align.batches.rendering import Renderer
from align.errors import UserError
from align.rows import Row

PARTS = ("harmful", "safe", "benign")
"""The parts of an unlearning batch, in order."""
ANSWER_OF = {
    "harmful": ("harmful", "harmful_response"),
    "safe": ("harmful", "response"),
    "benign": ("benign", "response"),
}
"""{part: (role of its rows, field of its responses)}"""


class PartsCollator(Collator):
    """Harmful and benign rows -> a batch whose responses have parts.

    `reference_part` is the part for which a method needs the reference model's log-probabilities.
    """

    def __init__(self, renderer: Renderer, max_length: int | None, pad_to_multiple_of: int | None, reference_part: str):
        super().__init__(renderer, max_length, pad_to_multiple_of)
        self.reference_part = reference_part

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Like `Collator`, with the `part` (responses,) of each response, and one part's batch as
        `reference`. Raises UserError.
        """
        rows = [(record["role"], self.render(row_of(record))) for record in records]
        rendered = {
            part: [row[field] for its_role, row in rows if its_role == role]
            for part, (role, field) in ANSWER_OF.items()
        }
        if empty := [part for part in PARTS if not rendered[part]]:
            raise UserError(
                f"a forward pass with the rows {', '.join(record['id'] for record in records)} has no "
                f"{' and no '.join(empty)} responses; "
                f"unlearning needs harmful and benign rows in each forward pass"
            )
        answers = [answer for part in PARTS for answer in rendered[part]]
        return self.lay_out(answers) | {
            "part": torch.tensor([i for i, part in enumerate(PARTS) for _ in rendered[part]]),
            "reference": self.lay_out(rendered[self.reference_part]) | self._keys(rendered[self.reference_part]),
            **self._bookkeeping(records, answers),
        }

    def answers_of(self, row: Row) -> Sequence[str]:
        """The fields of a row that contain responses to train on; they depend on its role."""
        return [field for role, field in ANSWER_OF.values() if role == row.role]
