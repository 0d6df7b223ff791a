"""Collation: rendered rows -> one padded batch and its layout, for text-only, image and mixed rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from align.batches.layout import Layout, cost, lay_out, worth_it
from align.batches.padding import IGNORED, NOTHING, images_of, names_of, once, together, tokens
from align.batches.rendered import Rendered
from align.batches.rendering import Renderer
from align.errors import BadRow
from align.rows import Row


class Collator:
    """Records of a `datasets.Dataset` of rows -> a padded batch: each row with its `response`.

    Nothing is truncated to `max_length`: a longer row is an error, because truncation may remove image
    tokens or the end of turn.
    """

    answers: tuple[str, ...] = ("response",)
    """Fields of a row that contain responses; the batch has one block of rows per field."""
    filler: Rendered | None = None
    """An image for batches without one. It is appended to the shortest row, hidden from attention
    and without labels, so no output changes. It makes the vision tower and projector run, as all
    processes must if weights are partitioned.
    """
    layout: str | None = None
    """The layout of a batch, one of `align.batches.layout.LAYOUTS`, with each image once. None: all
    rows and images as given.
    """
    keyed: bool = False
    """Whether a batch has keys of its responses for the cache of the reference model
    (align/fast/reference_store.py).
    """
    names_images: bool = False
    """Whether a batch with a layout names its images, so that policy and reference model share them
    (align/fast/images_once.py).
    """
    trains_history: bool = False
    """Whether earlier responses of a conversation are supervised too, where its row says so."""
    width: int = 0
    """The model's hidden size; `layout=auto` needs it to estimate the cost of attention."""

    def __init__(self, renderer: Renderer, max_length: int | None = None, pad_to_multiple_of: int | None = None):
        self.renderer = renderer
        self.max_length = max_length
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask`, `labels` (blocks x rows, length), `row_index`,
        `supervised_tokens` (rows,), images.

        Raises UserError.
        """
        rows = [self.render(row_of(record)) for record in records]
        rendered = [row[field] for field in self.answers for row in rows]
        return self.lay_out(rendered) | self._keys(rendered) | self._bookkeeping(records, rendered)

    def render(self, row: Row) -> dict[str, Rendered]:
        """{field: rendered row} for each response that a row is trained with. Raises UserError."""
        answers = self._given(row)
        found = self.renderer.render_answers(row, list(answers.values()), self.trains_history)
        rendered = dict(zip(answers, found, strict=True))
        for field, one in rendered.items():
            if self.max_length is not None and one.length > self.max_length:
                raise BadRow(
                    f"row {row.id} has {one.length} tokens with its `{field}`, more than "
                    f"train.max_length={self.max_length}; nothing is "
                    f"truncated: raise train.max_length, set it to null, or remove the row",
                    "too_long",
                )
        return rendered

    def measure(self, row: Row) -> tuple[int, dict[str, list[int]]]:
        """(Tokens of the prompt, {field: ids of the response}), as in `render`, without decoding
        images. Raises UserError.
        """
        answers = self._given(row)
        prompt, ids = self.renderer.measure(row, list(answers.values()), self.trains_history)
        return prompt, dict(zip(answers, ids, strict=True))

    def _given(self, row: Row) -> dict[str, str]:
        """{field: response} for the responses that a row is trained with. Raises BadRow if one is absent."""
        answers = {field: getattr(row, field) for field in self.answers_of(row)}
        if absent := [field for field, answer in answers.items() if answer is None]:
            raise BadRow(f"row {row.id} of {row.source} has no `{absent[0]}`, which this method needs", "no_answer")
        return answers

    def about_as_long(self, record: dict[str, Any]) -> tuple[int, int]:
        """(Images, characters) of a row, without rendering: rows with similar values have about as many tokens."""
        row = row_of(record)
        turns = [turn.text for turn in row.history]
        texts = [*turns, row.prompt, *(getattr(row, field) or "" for field in self.answers_of(row))]
        return len(row.images), sum(map(len, texts))

    def answers_of(self, row: Row) -> Sequence[str]:
        """The fields of a row that contain responses to train on."""
        return self.answers

    def lay_out(self, rendered: Sequence[Rendered]) -> dict[str, Any]:
        """Padded rows, each image once, and a `layout` unless the padded rows are computed directly."""
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
        """The layout of the padded rows, or None to compute them directly; `auto` selects the cheapest."""
        if any(row.learned for row in rows):  # a layout supervises nothing in a prompt
            return None
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
        """The indices of the rows, and the number of supervised tokens of each row over all its responses."""
        supervised: Counter[str] = Counter()
        for answer in rendered:
            supervised[answer.id] += len(answer.answer_ids) + sum(answer.learned)
        return {
            "row_index": torch.tensor([record["index"] for record in records]),
            "supervised_tokens": torch.tensor([supervised[record["id"]] for record in records]),
        }


def row_of(record: dict[str, Any]) -> Row:
    """The row of a record of the dataset."""
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
        """Like `Collator`, with `completion_mask` (2 x rows, length) instead of `labels`."""
        batch = super().__call__(records)
        batch["completion_mask"] = (batch.pop("labels") != IGNORED).long()
        return batch


MARKS = ("desirable", "undesirable")
"""The parts of a batch of answers that are marked as good or bad."""


def marked(row: Row) -> dict[str, str]:
    """{mark: field of the answer}: a pair has both marks, a row with one answer has one.

    A harmful response is undesirable.
    """
    fields = {
        "desirable": "response" if row.chosen is None else "chosen",
        "undesirable": "harmful_response" if row.rejected is None and row.role == "harmful" else "rejected",
    }
    return {mark: field for mark, field in fields.items() if getattr(row, field) is not None}


class MarkedCollator(Collator):
    """The same for answers that are marked as good or bad: first the desirable ones of all rows."""

    answers = PAIR
    others: Sequence[Sequence[str]] = ()
    """Answers of another row for each row of the dataset, by its number. With them a batch has the
    requests of its rows with these answers too, as `mismatched`. They belong to no request, so
    `max_length` does not apply to them.
    """

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """As `Collator`, with the `part` (answers,) of each answer, an index into MARKS."""
        answers: dict[str, list[Rendered]] = {mark: [] for mark in MARKS}
        mismatched: list[Rendered] = []
        for record in records:
            row = row_of(record)
            rendered = self.render(row)
            for mark, field in marked(row).items():
                answers[mark].append(rendered[field])
            if self.others:
                own = next(iter(rendered.values()))
                ids = self.renderer.measure(row, self.others[record["index"]])[1]
                mismatched += [replace(own, answer_ids=of_other) for of_other in ids]
        whole = [answer for mark in MARKS for answer in answers[mark]]
        part = torch.tensor([i for i, mark in enumerate(MARKS) for _ in answers[mark]])
        batch = self.lay_out(whole) | self._keys(whole) | self._bookkeeping(records, whole) | {"part": part}
        if mismatched:
            batch["mismatched"] = self.lay_out(mismatched) | self._keys(mismatched)
        return batch

    def answers_of(self, row: Row) -> Sequence[str]:
        """The fields of a row that contain its marked answers."""
        return list(marked(row).values())


class AnyAnswers(Collator):
    """Collator for every response that a row has, to check rows without a training method."""

    def answers_of(self, row: Row) -> Sequence[str]:
        """The fields of a row that contain a response."""
        fields = ("response", "chosen", "rejected", "harmful_response")
        return [field for field in fields if getattr(row, field) is not None]


class Prompts(Collator):
    """Collator for prompts without responses."""

    answers: tuple[str, ...] = ()
