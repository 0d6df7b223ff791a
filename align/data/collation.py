"""Collation: rendered rows -> one padded batch. Text-only, image and mixed rows go through the same lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from align.data.rendering import Rendered, Renderer
from align.errors import UserError
from align.rows import Row

IGNORED = -100
"""The label of a position without loss (torch's cross-entropy, transformers)."""
NOTHING = Rendered("", [], [], {}, {})
"""What stands behind a row: nothing, mostly."""


class Collator:
    """Records of a `datasets.Dataset` of rows -> a padded batch: each row with its `response`.

    `max_length` is a bound, not a knife: a longer row is an error, because a cut may remove image tokens or the end of turn.
    """

    answers: tuple[str, ...] = ("response",)
    """Fields of a row that are answered with, one block of the batch each."""
    filler: Rendered | None = None
    """A picture that nothing looks at, for batches without one: see `pad`."""

    def __init__(self, renderer: Renderer, max_length: int | None = None, pad_to_multiple_of: int | None = None):
        self.renderer = renderer
        self.max_length = max_length
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask`, `labels` (blocks x rows, length), `row_index`, `supervised_tokens` (rows,), image tensors.

        Raises UserError.
        """
        rows = [self.render(row_of(record)) for record in records]
        rendered = [row[field] for field in self.answers for row in rows]
        return self._pad(rendered) | self._bookkeeping(records, rendered)

    def render(self, row: Row) -> dict[str, Rendered]:
        """{field: what the model reads} for each answer that a row is trained with. Raises UserError."""
        fields = self._answers_of(row)
        answers = [getattr(row, field) for field in fields]
        if None in answers:
            raise UserError(
                f"row {row.id} of {row.source} has no `{fields[answers.index(None)]}`, which this method needs"
            )
        rendered = dict(zip(fields, self.renderer.render_answers(row, answers), strict=True))
        for field, one in rendered.items():
            if self.max_length is not None and one.length > self.max_length:
                raise UserError(
                    f"row {row.id} has {one.length} tokens with its `{field}`, more than train.max_length={self.max_length}; nothing "
                    f"is cut: raise it, set it to null, or remove the row"
                )
        return rendered

    def _answers_of(self, row: Row) -> Sequence[str]:
        return self.answers

    def _pad(self, rendered: Sequence[Rendered]) -> dict[str, torch.Tensor]:
        return pad(rendered, self.renderer.pad_token_id, self.pad_to_multiple_of, filler=self.filler)

    def _bookkeeping(self, records: Sequence[dict[str, Any]], rendered: Sequence[Rendered]) -> dict[str, torch.Tensor]:
        """Which rows these are, and how many tokens of each are supervised, over all its answers."""
        supervised: Counter[str] = Counter()
        for answer in rendered:
            supervised[answer.id] += len(answer.answer_ids)
        return {
            "row_index": torch.tensor([record["index"] for record in records]),
            "supervised_tokens": torch.tensor([supervised[record["id"]] for record in records]),
        }


def row_of(record: dict[str, Any]) -> Row:
    """The row of a record of the data set."""
    return Row.from_dict({key: value for key, value in record.items() if key != "index"})


class PreferenceCollator(Collator):
    """The same for pairs: a block of rows with their `chosen` answer, then one with their `rejected`, as trl's DPO reads them."""

    answers = ("chosen", "rejected")

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """As `Collator`, with `completion_mask` (2 x rows, length) in place of `labels`."""
        batch = super().__call__(records)
        batch["completion_mask"] = (batch.pop("labels") != IGNORED).long()
        return batch


PARTS = ("harmful", "safe", "benign")
"""The parts of an unlearning batch, in their order in it."""
ANSWER_OF = {
    "harmful": ("harmful", "harmful_response"),
    "safe": ("harmful", "response"),
    "benign": ("benign", "response"),
}
"""Part -> (role of its rows, field of its answers)."""


class PartsCollator(Collator):
    """Harmful and benign rows -> a batch whose answers have parts.

    `reference_part` is the part that a method asks its reference about.
    """

    def __init__(self, renderer: Renderer, max_length: int | None, pad_to_multiple_of: int | None, reference_part: str):
        super().__init__(renderer, max_length, pad_to_multiple_of)
        self.reference_part = reference_part

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """As `Collator`, with the `part` (answers,) of each answer, and the batch of one part again as `reference`. Raises UserError."""
        rows = [(record["role"], self.render(row_of(record))) for record in records]
        rendered = {
            part: [row[field] for its_role, row in rows if its_role == role]
            for part, (role, field) in ANSWER_OF.items()
        }
        if empty := [part for part in PARTS if not rendered[part]]:
            raise UserError(
                f"a forward pass over {', '.join(record['id'] for record in records)} has no {' and no '.join(empty)} answers; unlearning "
                f"needs harmful and benign rows in each"
            )
        answers = [answer for part in PARTS for answer in rendered[part]]
        return self._pad(answers) | {
            "part": torch.tensor([i for i, part in enumerate(PARTS) for _ in rendered[part]]),
            "reference": self._pad(rendered[self.reference_part]),
            **self._bookkeeping(records, answers),
        }

    def _answers_of(self, row: Row) -> Sequence[str]:
        return [field for role, field in ANSWER_OF.values() if role == row.role]


def pad(
    rows: Sequence[Rendered],
    pad_token_id: int,
    multiple_of: int | None = None,
    left: bool = False,
    filler: Rendered | None = None,
) -> dict[str, torch.Tensor]:
    """Rendered rows -> a batch of (batch, length) tensors, padded right for training or left for generation.

    In a batch without pictures the `filler` is put behind the shortest row, hidden from attention and without labels: no output
    changes, and the vision tower and projector run, which all processes must do where weights are divided among them.
    """
    tails = [NOTHING] * len(rows)
    if filler is not None and not any(row.image_inputs for row in rows):
        tails[min(range(len(rows)), key=lambda i: rows[i].length)] = filler
    length = max(row.length + tail.length for row, tail in zip(rows, tails, strict=True))
    if multiple_of:
        length = -(-length // multiple_of) * multiple_of

    def padded(sequences: list[list[int]], value: int) -> torch.Tensor:
        fill = [[value] * (length - len(s)) for s in sequences]
        return torch.tensor([f + s if left else s + f for f, s in zip(fill, sequences, strict=True)])

    both = list(zip(rows, tails, strict=True))
    batch = {
        "input_ids": padded([row.prompt_ids + row.answer_ids + tail.prompt_ids for row, tail in both], pad_token_id),
        "attention_mask": padded([[1] * row.length + [0] * tail.length for row, tail in both], 0),
        "labels": padded(
            [[IGNORED] * len(row.prompt_ids) + row.answer_ids + [IGNORED] * tail.length for row, tail in both], IGNORED
        ),
    }
    for key in sorted({key for row in rows for key in row.aligned}):
        batch[key] = padded(
            [row.aligned[key] + [0] * len(row.answer_ids) + tail.aligned.get(key, []) for row, tail in both], 0
        )
    for key in sorted({key for one in (*rows, *tails) for key in one.image_inputs}):
        batch[key] = torch.cat([one.image_inputs[key] for one in (*rows, *tails) if key in one.image_inputs])
    return batch
