"""The inputs of a model's forward in a given layout (align/batches/layout.py)."""

from __future__ import annotations

from typing import Any

import torch

from align.errors import UserError
from align.families import Family

IMPLEMENTATIONS = ("sdpa", "eager")
"""Attention implementations that accept a mask over pairs of positions."""


def layout_for(wanted: str, model: Any, family: Family, arguments: Any) -> tuple[str | None, str | None]:
    """(The collator's layout, why it is not the wanted one).

    Raises UserError if the wanted layout cannot be used.
    """
    attention = model.config.get_text_config()._attn_implementation
    reason = None
    if not family.lays_out:
        reason = f"family {family.model_type} supports no other layout than padded rows"
    elif attention not in IMPLEMENTATIONS:
        reason = f"attention {attention} takes no mask over pairs of positions ({' and '.join(IMPLEMENTATIONS)} do)"
    elif arguments.neftune_noise_alpha:
        reason = "the noise of train.neftune_noise_alpha depends on which tokens are computed, and how many are in a sequence"
    if reason is None:
        return wanted, None
    if wanted not in ("auto", "padded"):
        raise UserError(f"layout={wanted}: {reason}; use layout=padded")
    return ("padded" if family.lays_out else None), reason


def laid_out(model: Any, inputs: dict[str, Any], layout: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The inputs of a model's forward in a layout.

    Each image is included once (align/fast/images_once.py).
    """
    inputs = dict(inputs)
    positions = _positions(model, inputs, layout["images_of_rows"])
    if "source" not in layout:  # padded rows, where several rows show the same image
        return inputs | ({} if positions is None else {"position_ids": positions})
    if positions is None:
        length = inputs["input_ids"].size(1)
        positions = torch.arange(length, device=inputs["input_ids"].device).expand_as(inputs["input_ids"])
    return inputs | {
        "input_ids": layout["input_ids"],
        "position_ids": positions.flatten(-2)[..., layout["source"]],
        "attention_mask": _mask(model, layout["group"], layout["segment"]),
    }


def _positions(model: Any, inputs: dict[str, Any], images: torch.Tensor) -> torch.Tensor | None:
    """Positions of the padded rows (3, rows, length).

    None if the model counts tokens and not image patches.
    """
    token_types = inputs.pop("mm_token_type_ids", None)
    if token_types is None or "image_grid_thw" not in inputs:
        return None
    found: torch.Tensor = model.base_model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=token_types,
        image_grid_thw=inputs["image_grid_thw"][images],
        attention_mask=inputs["attention_mask"],
    )[0]
    return found


def _mask(model: Any, group: torch.Tensor, segment: torch.Tensor) -> torch.Tensor:
    """Mask (rows, 1, length, length).

    A token attends to earlier tokens of its group's prompt and of its own segment.
    """
    same_group = group[:, :, None] == group[:, None, :]
    same_segment = (segment[:, :, None] == segment[:, None, :]) | (segment[:, None, :] == 0)
    sees = (same_group & same_segment).tril()[:, None]
    if model.config.get_text_config()._attn_implementation == "sdpa":
        return sees
    lowest = torch.finfo(model.dtype).min
    return torch.zeros_like(sees, dtype=model.dtype).masked_fill(~sees, lowest)
