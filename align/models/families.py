"""Families: where a model keeps its towers and how it ends a turn. A new family is one entry in FAMILIES."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.errors import UserError

TOWERS = ("vision_tower", "multi_modal_projector", "language_model")


@dataclass(frozen=True)
class Family:
    """What our code must know of a model type and cannot read off its processor."""

    model_type: str
    towers: dict[str, str]
    """Name of a tower -> prefix of its modules in the model. The first prefix that fits a module wins."""
    end_of_turn_token: str | None = None
    """The token that ends an answer; None takes the tokenizer's end-of-sequence token (LLaVA's template writes none itself)."""

    def end_of_turn(self, processor: Any) -> str:
        """The text that ends an answer. Raises UserError where the tokenizer has no such token."""
        token = self.end_of_turn_token or processor.tokenizer.eos_token
        if token is None or token not in processor.tokenizer.get_vocab():
            raise UserError(f"family {self.model_type}: end of turn {token!r} is not in the tokenizer's vocabulary")
        return token

    def tower_of(self, module: str) -> str | None:
        """Which tower a module or parameter belongs to, by its name in the model; None for the output head."""
        return next((tower for tower, prefix in self.towers.items() if f".{module}.".find(f".{prefix}.") >= 0), None)


FAMILIES = {
    "llava": Family(
        "llava",
        {
            "vision_tower": "model.vision_tower",
            "multi_modal_projector": "model.multi_modal_projector",
            "language_model": "model.language_model",
        },
    ),
    # The merger, Qwen2-VL's projector, lives inside the vision module and so comes first.
    "qwen2_vl": Family(
        "qwen2_vl",
        {
            "multi_modal_projector": "model.visual.merger",
            "vision_tower": "model.visual",
            "language_model": "model.language_model",
        },
        end_of_turn_token="<|im_end|>",
    ),
}


def family_of(model_type: str) -> Family:
    """The family of a model type (`config.model_type`). Raises UserError for one that is not known."""
    if model_type not in FAMILIES:
        raise UserError(f"model type {model_type!r} is not one of the known families: {', '.join(FAMILIES)}")
    return FAMILIES[model_type]
