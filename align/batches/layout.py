"""Layouts: where a model computes a batch.

A batch always states its padded rows: labels, losses and logs are of these. A layout says which of their cells the model computes, and
where. `padded`: all of them. `shared_prefix`: a prompt, images included, once for all answers to it,

    prompt | first answer | second answer          where an answer sees the prompt and itself

`packed`: the same, and what is short stands one behind the other in a row, where each sees itself alone. Losses and gradients are those of
the padded rows up to rounding.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch

from align.batches.rendering import Rendered
from align.rows import ImageRef

LAYOUTS = ("auto", "padded", "shared_prefix", "packed")
NOWHERE = -1
"""Of a cell that pads: its group, and where it is computed."""


@dataclass
class Group:
    """What sees each other: a prompt and the answers to it."""

    begins: int
    """Where in the padded rows, one behind the other, its prompt is."""
    prompt: int
    """Tokens of the prompt."""
    images: tuple[ImageRef, ...]
    answers: list[tuple[int, int]] = field(default_factory=list)
    """(padded row, tokens that predict one: all but the answer's last)"""

    @property
    def length(self) -> int:
        """Tokens that are computed."""
        return self.prompt + sum(tokens for _, tokens in self.answers)


@dataclass(frozen=True)
class Layout:
    """Groups in the rows that the model computes, of `length` tokens each."""

    rows: Sequence[Sequence[Group]]
    length: int

    @property
    def images(self) -> list[ImageRef]:
        """In the order in which the model meets them."""
        return [image for row in self.rows for group in row for image in group.images]

    @property
    def shape(self) -> tuple[int, int]:
        """(Rows, tokens of each)."""
        return len(self.rows), self.length

    def tensors(self, input_ids: torch.Tensor, labelled: torch.Tensor, pad_token_id: int) -> dict[str, torch.Tensor]:
        """What the model's forward is told (align/fast/model_inputs.py). `input_ids`, `labelled` (padded rows, padded length).

        `input_ids`, `source` (which cell of the padded rows stands there), `group`, `segment` (0 for a prompt, then its answers), each
        (rows, length); `predicts` (labelled tokens,): the cell that predicts each, padded row by padded row.
        """
        source = torch.zeros((len(self.rows), self.length), dtype=torch.long)
        group, segment = torch.full_like(source, NOWHERE), torch.zeros_like(source)
        placed = torch.full_like(input_ids, NOWHERE)
        for i, row in enumerate(self.rows):
            start = 0
            for number, one in enumerate(row):
                prompt = torch.arange(one.prompt)
                group[i, start : start + one.length] = number
                source[i, start : start + one.prompt] = one.begins + prompt
                at = start + one.prompt
                for k, (answered, tokens) in enumerate(one.answers, start=1):
                    answer = torch.arange(tokens)
                    source[i, at : at + tokens] = answered * input_ids.size(1) + one.prompt + answer
                    segment[i, at : at + tokens] = k
                    placed[answered, : one.prompt] = i * self.length + start + prompt
                    placed[answered, one.prompt : one.prompt + tokens] = i * self.length + at + answer
                    at += tokens
                start = at
        there = input_ids.flatten()[source].masked_fill(group == NOWHERE, pad_token_id)
        predicts = placed[:, :-1][labelled[:, 1:]]
        return {"input_ids": there, "source": source, "group": group, "segment": segment, "predicts": predicts}


WORTH_IT = 0.97
"""`auto` leaves rows padded where another layout saves less than the rest: it takes a mask of its own, and picking positions."""


def cost(shape: tuple[float, int], width: int) -> float:
    """Of computing (rows, length), in tokens. Attention costs a token as much as its matrices at 6 times the hidden size, `width`."""
    rows, length = shape
    return rows * length * (1 + length / (6 * width))


def worth_it(shape: tuple[float, int], padded: tuple[float, int], width: int) -> bool:
    """Whether `auto` computes (rows, length) in place of the padded rows."""
    return cost(shape, width) < WORTH_IT * cost(padded, width)


def lay_out(
    rows: Sequence[Rendered],
    length: int,
    filler: tuple[int, Rendered] | None = None,
    pack: bool = True,
    multiple_of: int | None = None,
) -> Layout:
    """Rows that are padded to `length` -> where they are computed. `filler`: the row that it stands behind, and what it is."""
    groups: dict[Hashable, Group] = {}
    for i, row in enumerate(rows):
        prompt = len(row.prompt_ids)
        group = groups.setdefault((tuple(row.prompt_ids), row.images), Group(i * length, prompt, row.images))
        # Without a prompt nothing predicts the first token, and the others are predicted all the same.
        group.answers.append((i, max(len(row.answer_ids) - 1, 0)))
    found = list(groups.values())
    laid = _packed(found) if pack else [[group] for group in found]
    if filler is not None:
        behind, it = filler
        nothing = Group(behind * length + rows[behind].length, it.length, it.images)
        min(laid, key=_length).append(nothing)
    longest = max(map(_length, laid))
    return Layout(laid, -(-longest // multiple_of) * multiple_of if multiple_of else longest)


def _packed(groups: Sequence[Group]) -> list[list[Group]]:
    """First fit, the longest first, into rows as long as the longest group."""
    capacity = max(group.length for group in groups)
    rows: list[list[Group]] = []
    for group in sorted(groups, key=lambda group: -group.length):
        room = next((row for row in rows if _length(row) + group.length <= capacity), None)
        if room is None:
            rows.append([group])
        else:
            room.append(group)
    return rows


def _length(row: Sequence[Group]) -> int:
    return sum(group.length for group in row)
