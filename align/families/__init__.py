"""Families: where a model keeps its towers and how it writes an image and ends a turn. A new one is a file here (docs/adding.md).

A model of no known family can be evaluated: its processor says all that takes. It cannot be trained, since nobody knows its towers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.config.registry import resolve
from align.errors import UserError

TOWERS = ("vision_tower", "multi_modal_projector", "language_model")
ENCODES_IMAGES = TOWERS[:2]


@dataclass(frozen=True)
class Family:
    """What our code must know of a model type and cannot read off its processor."""

    model_type: str
    towers: dict[str, str]
    """Name of a tower -> prefix of its modules in the model. The first prefix that fits a module wins."""
    end_of_turn_token: str | None = None
    """The token that ends an answer; None takes the tokenizer's end-of-sequence token (LLaVA's template writes none itself)."""
    image_token: str | None = None
    """The token that an image is written with, many times; None where it is also the template's placeholder for one image."""

    lays_out: bool = False
    """Whether its rows may be computed elsewhere than where they stand (align/fast/model_inputs.py): its forward takes `position_ids` and a
    4-D mask, its `get_image_features` gives one entry per image, and no token sees a later one."""

    @property
    def known(self) -> bool:
        """Whether it can be trained, and several of its rows laid out in one batch."""
        return bool(self.towers)

    def end_of_turn(self, processor: Any) -> str:
        """The text that ends an answer. Raises UserError where the tokenizer has no such token."""
        token = self.end_of_turn_token or processor.tokenizer.eos_token
        if token is None or token not in processor.tokenizer.get_vocab():
            raise UserError(f"family {self.model_type}: end of turn {token!r} is not in the tokenizer's vocabulary")
        return token

    def tower_of(self, module: str) -> str | None:
        """Which tower a module or parameter belongs to, by its name in the model; None for the output head."""
        return next((tower for tower, prefix in self.towers.items() if f".{module}.".find(f".{prefix}.") >= 0), None)


FAMILIES = {name: f"align.families.{name}:FAMILY" for name in ("llava", "qwen2_vl", "gemma3")}
"""Model type -> where its family is."""


def family_of(model_type: str, family: str | None = None) -> Family:
    """The family of a model type (`config.model_type`), or the one that is named. Raises UserError where that does not exist.

    A model type that is not known gets a family without towers.
    """
    if family is None and model_type not in FAMILIES:
        return Family(model_type, {})
    return resolve("model.family", family or model_type, FAMILIES)
