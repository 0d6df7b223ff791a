"""Padding: rendered rows -> tensors of one length, and their images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from align.batches.rendered import Rendered, digest_of
from align.rows import ImageRef

IGNORED = -100
"""The label of a position without loss (torch's cross-entropy, transformers)."""
NOTHING = Rendered("", [], [], {}, {})
"""An empty tail for a row."""


def pad(rows: Sequence[Rendered], pad_token_id: int, left: bool = False) -> dict[str, torch.Tensor]:
    """Rendered rows -> a batch of (batch, length) tensors, padded right or, for generation, left;
    repeated images stay repeated.
    """
    return tokens(rows, [NOTHING] * len(rows), pad_token_id, left=left) | images_of(rows)


def tokens(
    rows: Sequence[Rendered],
    tails: Sequence[Rendered],
    pad_token_id: int,
    multiple_of: int | None = None,
    left: bool = False,
) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask`, `labels`, and the processor's other tensors per token. `tails`
    follow the rows, masked.
    """
    length = max(row.length + tail.length for row, tail in zip(rows, tails, strict=True))
    if multiple_of:
        length = -(-length // multiple_of) * multiple_of

    def padded(sequences: list[list[Any]], value: Any) -> torch.Tensor:
        fill = [[value] * (length - len(s)) for s in sequences]
        return torch.tensor([f + s if left else s + f for f, s in zip(fill, sequences, strict=True)])

    both = list(zip(rows, tails, strict=True))
    batch = {
        "input_ids": padded([row.prompt_ids + row.answer_ids + tail.prompt_ids for row, tail in both], pad_token_id),
        "attention_mask": padded([[1] * row.length + [0] * tail.length for row, tail in both], 0),
        "labels": padded([_labels(row) + [IGNORED] * tail.length for row, tail in both], IGNORED),
    }
    for key in sorted({key for row in rows for key in row.aligned}):
        empty = _zeros(next(row.aligned[key][0] for row in rows if key in row.aligned))
        batch[key] = padded(
            [row.aligned[key] + _of_answer(row, key) + tail.aligned.get(key, []) for row, tail in both], empty
        )
    return batch


def _labels(row: Rendered) -> list[int]:
    """The labels of a row: its response, and earlier responses that are trained on."""
    learned = row.learned or [False] * len(row.prompt_ids)
    prompt = [token if taken else IGNORED for token, taken in zip(row.prompt_ids, learned, strict=True)]
    return prompt + row.answer_ids


def _of_answer(row: Rendered, key: str) -> list[Any]:
    """The values of the tokens of a response: 0, or what the last token of the prompt sees (Llama 3.2 Vision)."""
    last = row.aligned[key][-1]
    return [last if isinstance(last, list) else 0] * len(row.answer_ids)


def _zeros(value: Any) -> Any:
    """A number or nested lists of numbers -> the same with zeros."""
    return [_zeros(one) for one in value] if isinstance(value, list) else 0


def images_of(rows: Sequence[Rendered]) -> dict[str, torch.Tensor]:
    """The image tensors of all images; repeated images stay repeated."""
    axis = max((row.image_axis for row in rows), default=0)
    return together([row.image_inputs for row in rows], axis)


def once(rows: Iterable[Rendered], wanted: Iterable[ImageRef]) -> list[dict[str, torch.Tensor]]:
    """The image tensors of each image in `wanted`, in this order. Raises UserError."""
    found: dict[ImageRef, dict[str, torch.Tensor]] = {}
    for row in rows:
        if any(image not in found for image in row.images):
            found |= zip(row.images, row.inputs_of_images(), strict=True)
    return [found[image] for image in wanted]


def together(inputs: Sequence[dict[str, torch.Tensor]], axis: int = 0) -> dict[str, torch.Tensor]:
    """Join image tensors along an axis. Other axes (tiles of an image, pixels) are padded with zeros at their end."""
    keys = sorted({key for of in inputs for key in of})
    return {key: _joined([of[key] for of in inputs if key in of], axis) for key in keys}


def _joined(tensors: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
    shapes = [tensor.shape[:axis] + tensor.shape[axis + 1 :] for tensor in tensors]
    if len(set(shapes)) == 1:
        return torch.cat(list(tensors), axis)
    sizes = [max(of_axis) for of_axis in zip(*(tensor.shape for tensor in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [size - own for size, own in zip(sizes, tensor.shape, strict=True)]
        missing[axis] = 0
        amounts = [amount for size in reversed(missing) for amount in (0, size)]
        padded.append(torch.nn.functional.pad(tensor, amounts))
    return torch.cat(padded, axis)


def names_of(inputs: Sequence[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Hashes of image tensors, (images, 16) as uint8: numbers, because strings cannot be moved to a device."""
    return torch.tensor([list(digest_of(of)) for of in inputs], dtype=torch.uint8)
