"""Forward passes over sampled responses: log-probabilities, values of a critic, reward models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from align.batches.collators import Collator
from align.batches.rendered import Rendered


def with_end(rendered: Rendered) -> Rendered:
    """A response with one more token, so that a position predicts it: that of its last token.

    Scalar heads are computed where a token is predicted (align/fast/supervised_head.py), and a
    reward model reads its reward at the last token. The token itself is seen by no other.
    """
    return replace(rendered, answer_ids=[*rendered.answer_ids, rendered.answer_ids[-1]])


def reward_batch(collator: Collator, rendered: Sequence[Rendered]) -> dict[str, Any]:
    """The batch of responses for a reward model."""
    return collator.lay_out([with_end(one) for one in rendered])


def last_values(output: Any) -> torch.Tensor:
    """What a scalar head computes at the last token of each response of a `reward_batch` (rows,)."""
    places = output.label_mask.cumsum(1).argmax(1)
    return output.scalars[torch.arange(len(places), device=places.device), places, 0]


def in_chunks(rendered: Sequence[Rendered], size: int) -> Iterator[tuple[list[int], list[Rendered]]]:
    """(Places, responses) of each forward pass: responses of about one length together, longest first."""
    order = sorted(range(len(rendered)), key=lambda i: (-rendered[i].length, i))
    for start in range(0, len(order), size):
        places = order[start : start + size]
        yield places, [rendered[i] for i in places]


def per_response(values: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    """(rows, length) and the mask of its tokens -> a tensor (tokens,) for each row, on the CPU."""
    values, mask = values.float().cpu(), mask.cpu()
    return [row[of] for row, of in zip(values, mask, strict=True)]


def placed(values: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    """The inverse of `per_response`: (rows, length), 0 where the mask is false."""
    flat = torch.cat(list(values)).to(mask.device)
    return flat.new_zeros(mask.shape).masked_scatter(mask, flat)
