"""Layouts: how a model computes a batch.

A batch always contains its padded rows; labels, losses and logs refer to them. A layout maps their
cells (tokens) to the sequences that the model computes. `padded`: one sequence per row. `shared_prefix`:
a shared prompt, images included, once for all its responses,

    prompt | first response | second response          a response attends to the prompt and itself

`packed`: like `shared_prefix`, with several short groups in one sequence; each group attends only to
itself. Losses and gradients equal those of the padded rows up to rounding.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch

from align.batches.rendered import Rendered
from align.rows import ImageRef

LAYOUTS = ("auto", "padded", "shared_prefix", "packed")
NOWHERE = -1
"""Group and position of a padding cell."""


@dataclass
class Group:
    """A prompt and its responses; attention stays within a group."""

    begins: int
    """The index of the prompt's first cell in the flattened padded rows."""
    prompt: int
    """Tokens of the prompt."""
    images: tuple[ImageRef, ...]
    answers: list[tuple[int, int]] = field(default_factory=list)
    """(padded row, number of tokens that predict another token: all but the response's last)"""

    @property
    def length(self) -> int:
        """Number of computed tokens."""
        return self.prompt + sum(tokens for _, tokens in self.answers)


@dataclass(frozen=True)
class Layout:
    """Groups in the sequences that the model computes, of `length` tokens each."""

    rows: Sequence[Sequence[Group]]
    length: int

    @property
    def images(self) -> list[ImageRef]:
        """The images, in the order in which they occur in the sequences."""
        return [image for row in self.rows for group in row for image in group.images]

    @property
    def shape(self) -> tuple[int, int]:
        """(Sequences, tokens per sequence)."""
        return len(self.rows), self.length

    def tensors(self, input_ids: torch.Tensor, labelled: torch.Tensor, pad_token_id: int) -> dict[str, torch.Tensor]:
        """Inputs of the model's forward pass (align/fast/model_inputs.py). `input_ids`, `labelled`
        (padded rows, padded length).

        Returns `input_ids`, `source` (index of the cell in the padded rows), `group`, `segment` (0
        for a prompt, then 1, 2, ... for its responses), each (sequences, length); and `predicts`
        (labelled tokens,): the cell that predicts each labelled token, in the order of the padded
        rows.
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
"""`auto` keeps rows padded unless the cost ratio is below this: other layouts need their own mask
and index operations.
"""


def cost(shape: tuple[float, int], width: int) -> float:
    """The cost of (rows, length), in tokens. At a length of 6 `width` (hidden size), attention
    costs as much as the matrices.
    """
    rows, length = shape
    return rows * length * (1 + length / (6 * width))


def worth_it(shape: tuple[float, int], padded: tuple[float, int], width: int) -> bool:
    """Whether `auto` computes (rows, length) instead of the padded rows."""
    return cost(shape, width) < WORTH_IT * cost(padded, width)


def lay_out(
    rows: Sequence[Rendered],
    length: int,
    filler: tuple[int, Rendered] | None = None,
    pack: bool = True,
    multiple_of: int | None = None,
) -> Layout:
    """The layout of rows padded to `length`. `filler`: (index of the row that it is appended to, rendered filler)."""
    groups: dict[Hashable, Group] = {}
    for i, row in enumerate(rows):
        prompt = len(row.prompt_ids)
        group = groups.setdefault((tuple(row.prompt_ids), row.images), Group(i * length, prompt, row.images))
        # Without a prompt nothing predicts the first token; the other tokens are predicted as usual.
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
    """Pack groups by first fit, longest first, into sequences as long as the longest group."""
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
