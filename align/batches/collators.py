"""Collation: rendered rows -> one padded batch, and where it is computed. Text-only, image and mixed rows go through the same lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from align.batches.layout import Layout, cost, lay_out, worth_it
from align.batches.padding import IGNORED, NOTHING, images_of, names_of, once, together, tokens
from align.batches.rendering import Rendered, Renderer
from align.errors import BadRow, UserError
from align.rows import Row


class Collator:
    """Records of a `datasets.Dataset` of rows -> a padded batch: each row with its `response`.

    `max_length` is a bound, not a knife: a longer row is an error, because a cut may remove image tokens or the end of turn.
    """

    answers: tuple[str, ...] = ("response",)
    """Fields of a row that are answered with, one block of the batch each."""
    filler: Rendered | None = None
    """An image for batches without one. It is put behind the shortest row, hidden from attention and without labels: no output changes,
    and the vision tower and projector run, which all processes must do where weights are divided among them.
    """
    layout: str | None = None
    """Where the model computes a batch, one of `align.batches.layout.LAYOUTS`, and each image once. None: rows and images as they are."""
    keyed: bool = False
    """Whether a batch names its answers for a store of what a reference says of them (align/fast/reference_store.py)."""
    names_images: bool = False
    """Whether a laid out batch names its images, so that policy and reference know them again (align/fast/images_once.py)."""
    width: int = 0
    """The model's hidden size, which `layout=auto` weighs attention by."""

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
        return self._lay_out(rendered) | self._keys(rendered) | self._bookkeeping(records, rendered)

    def render(self, row: Row) -> dict[str, Rendered]:
        """{field: what the model reads} for each answer that a row is trained with. Raises UserError."""
        answers = self._given(row)
        rendered = dict(zip(answers, self.renderer.render_answers(row, list(answers.values())), strict=True))
        for field, one in rendered.items():
            if self.max_length is not None and one.length > self.max_length:
                raise BadRow(
                    f"row {row.id} has {one.length} tokens with its `{field}`, more than train.max_length={self.max_length}; nothing "
                    f"is cut: raise it, set it to null, or remove the row",
                    "too_long",
                )
        return rendered

    def measure(self, row: Row) -> tuple[int, dict[str, list[int]]]:
        """(Tokens of the prompt, {field: ids of that answer}) as `render` makes them; no image is decoded. Raises UserError."""
        answers = self._given(row)
        prompt, ids = self.renderer.measure(row, list(answers.values()))
        return prompt, dict(zip(answers, ids, strict=True))

    def _given(self, row: Row) -> dict[str, str]:
        """{field: answer} of those that a row is trained with. Raises BadRow where one is absent."""
        answers = {field: getattr(row, field) for field in self.answers_of(row)}
        if absent := [field for field, answer in answers.items() if answer is None]:
            raise BadRow(f"row {row.id} of {row.source} has no `{absent[0]}`, which this method needs", "no_answer")
        return answers

    def about_as_long(self, record: dict[str, Any]) -> tuple[int, int]:
        """(Images, characters) that a model reads of a row: rows alike in them take about as many tokens. Nothing is rendered."""
        row = row_of(record)
        texts = [row.prompt, *(getattr(row, field) or "" for field in self.answers_of(row))]
        return len(row.images), sum(map(len, texts))

    def answers_of(self, row: Row) -> Sequence[str]:
        """The fields of a row that are answered with."""
        return self.answers

    def _lay_out(self, rendered: Sequence[Rendered]) -> dict[str, Any]:
        """Padded rows, each image once, and a `layout` where rows are not computed as they stand."""
        behind = None
        if self.filler is not None and not any(row.images for row in rendered):
            behind = min(range(len(rendered)), key=lambda i: rendered[i].length)
        tails = [self.filler if i == behind and self.filler else NOTHING for i in range(len(rendered))]
        batch: dict[str, Any] = tokens(rendered, tails, self.renderer.pad_token_id, self.pad_to_multiple_of)
        if self.layout is None:
            return batch | images_of([*rendered, *tails])
        layout = self._layout(rendered, batch["input_ids"].shape, behind)
        shown = [image for pair in zip(rendered, tails, strict=True) for one in pair for image in one.images]
        computed = shown if layout is None else layout.images
        number = {image: i for i, image in enumerate(dict.fromkeys(computed))}
        images = once([*rendered, *tails], number)
        batch |= together(images)
        named = {"image_keys": names_of(images)} if self.names_images and images else {}
        if layout is not None or len(number) < len(shown) or named:
            batch["layout"] = {
                "images": torch.tensor([number[image] for image in computed], dtype=torch.long),
                "images_of_rows": torch.tensor([number[image] for image in shown], dtype=torch.long),
                **named,
            }
        if layout is not None:
            labelled = batch["labels"] != IGNORED
            batch["layout"] |= layout.tensors(batch["input_ids"], labelled, self.renderer.pad_token_id)
        return batch

    def _layout(self, rows: Sequence[Rendered], padded: torch.Size, behind: int | None) -> Layout | None:
        """Where the padded rows are computed; None where they are, and `auto` takes what costs the least."""
        filler = None if behind is None or self.filler is None else (behind, self.filler)
        laid = partial(lay_out, rows, padded[1], filler, multiple_of=self.pad_to_multiple_of)
        if self.layout == "shared_prefix":
            return laid(pack=False)
        if self.layout == "packed":
            return laid(pack=True)
        if self.layout == "padded":
            return None
        best = min((laid(pack=False), laid(pack=True)), key=lambda layout: cost(layout.shape, self.width))
        return best if worth_it(best.shape, (padded[0], padded[1]), self.width) else None

    def _keys(self, rendered: Sequence[Rendered]) -> dict[str, list[str]]:
        return {"answer_keys": [one.key for one in rendered]} if self.keyed else {}

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


PAIR = ("chosen", "rejected")
"""The answers of a pair, which are the parts of a batch of pairs."""


class PairsCollator(Collator):
    """The same for pairs: a block of rows with their `chosen` answer, then one with their `rejected`."""

    answers = PAIR

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """As `Collator`, with the `part` (2 x rows,) of each answer, an index into PAIR."""
        return super().__call__(records) | {"part": torch.arange(2).repeat_interleave(len(records))}


class PreferenceCollator(Collator):
    """The same for pairs as trl's DPO reads them."""

    answers = PAIR

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """As `Collator`, with `completion_mask` (2 x rows, length) in place of `labels`."""
        batch = super().__call__(records)
        batch["completion_mask"] = (batch.pop("labels") != IGNORED).long()
        return batch


class AnyAnswers(Collator):
    """The same with every answer that a row has, for whoever looks at rows without a method."""

    def answers_of(self, row: Row) -> Sequence[str]:
        """The fields of the answers that are there."""
        fields = ("response", "chosen", "rejected", "harmful_response")
        return [field for field in fields if getattr(row, field) is not None]


class Prompts(Collator):
    """The same without answers: rows that a model is to answer."""

    answers = ()


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
        return self._lay_out(answers) | {
            "part": torch.tensor([i for i, part in enumerate(PARTS) for _ in rendered[part]]),
            "reference": self._lay_out(rendered[self.reference_part]) | self._keys(rendered[self.reference_part]),
            **self._bookkeeping(records, answers),
        }

    def answers_of(self, row: Row) -> Sequence[str]:
        """The fields of a row that are answered with: a matter of its role."""
        return [field for role, field in ANSWER_OF.values() if role == row.role]
