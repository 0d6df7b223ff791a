"""Model families: module names of the towers, image token, and end of turn. A new family is a file
here (docs/adding.md).

A model of an unknown family can be evaluated, because its processor has all information for that.
It cannot be trained, because its towers are unknown.
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
    """Facts about a model type that its processor does not contain."""

    model_type: str
    towers: dict[str, str | tuple[str, ...]]
    """{tower: prefix of its modules in the model, or several}. The first matching prefix wins."""
    end_of_turn_token: str | None = None
    """The token that ends a response; None: the tokenizer's end-of-sequence token (LLaVA's template
    writes none itself).
    """
    image_token: str | None = None
    """The token that is repeated for an image; None if it is also the template's placeholder for one image."""

    image_axis: int = 0
    """The axis along which the image tensors of several rows are joined. Other axes are padded with zeros."""
    per_token: tuple[str, ...] = ()
    """Outputs of the processor, of shape (1, length, ...), that have several numbers for each token."""
    counts_image_tokens: bool = True
    """Whether the processor tells how many tokens an image of a given size gets, for any number of
    images. If not, they are counted on a blank image of that size.
    """
    mixes_rows: bool = True
    """Whether rows with and without images can share a forward pass. If not, each row has its own."""
    lays_out: bool = False
    """Whether the layouts `shared_prefix` and `packed` work (align/fast/model_inputs.py): the
    forward pass accepts `position_ids` and a 4-D mask, `get_image_features` returns one entry per
    image, and attention is causal.
    """

    @property
    def known(self) -> bool:
        """Whether the family can be trained."""
        return bool(self.towers)

    @property
    def batches(self) -> bool:
        """Whether several rows can share a forward pass."""
        return self.known and self.mixes_rows

    def end_of_turn(self, processor: Any) -> str:
        """The text that ends a response. Raises UserError if the tokenizer has no such token."""
        token = self.end_of_turn_token or processor.tokenizer.eos_token
        if token is None or token not in processor.tokenizer.get_vocab():
            raise UserError(
                f"family {self.model_type}: the end-of-turn token {token!r} is not in the tokenizer's vocabulary; set "
                "`end_of_turn_token` in the family"
            )
        return token

    def tower_of(self, module: str) -> str | None:
        """The tower of a module or parameter, by its name in the model; None for the output head."""
        return next((tower for tower in self.towers if self._contains(tower, module)), None)

    def prefixes(self, tower: str) -> tuple[str, ...]:
        """The prefixes of a tower's modules."""
        given = self.towers[tower]
        return (given,) if isinstance(given, str) else given

    def _contains(self, tower: str, module: str) -> bool:
        return any(f".{prefix}." in f".{module}." for prefix in self.prefixes(tower))


SHIPPED = (
    *("llava", "llava_next", "llava_onevision"),
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"),
    *("internvl", "smolvlm", "idefics3", "mllama", "gemma3"),
)
FAMILIES = {name: f"align.families.{name}:FAMILY" for name in SHIPPED}
"""{model type: location of its family}"""


def family_of(model_type: str, family: str | None = None) -> Family:
    """The family of a model type (`config.model_type`), or the named family. Raises UserError if it does not exist.

    An unknown model type gets a family without towers.
    """
    if family is None and model_type not in FAMILIES:
        return Family(model_type, {})
    return resolve("model.family", family or model_type, FAMILIES)
