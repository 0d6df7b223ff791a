"""A rendered row: token ids, the supervised span and image tensors."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch

from align.errors import UserError
from align.rows import ImageRef


@dataclass
class Rendered:
    """One row as model inputs."""

    id: str
    prompt_ids: list[int]
    """All tokens before the response, image tokens included."""
    answer_ids: list[int]
    """The response and its end of turn: the supervised span. Empty in generation."""
    aligned: dict[str, list[Any]]
    """Other outputs of the processor per prompt token (Qwen2-VL's mm_token_type_ids)."""
    image_inputs: dict[str, torch.Tensor]
    """Outputs of the processor per image (pixel_values, image_grid_thw), joined over a batch along `image_axis`."""
    images: tuple[ImageRef, ...] = ()
    """The images, in order."""
    image_axis: int = 0
    learned: tuple[bool, ...] = ()
    """For each prompt token, whether it belongs to an earlier response that is trained on; empty: none does."""

    @property
    def length(self) -> int:
        """Number of tokens in prompt and response."""
        return len(self.prompt_ids) + len(self.answer_ids)

    @property
    def key(self) -> str:
        """32 hex digits of all model inputs: prompt, response and pixels."""
        return digest_of(self.image_inputs, json.dumps([self.prompt_ids, self.answer_ids]).encode()).hex()

    def inputs_of_images(self) -> list[dict[str, torch.Tensor]]:
        """`image_inputs`, split by image."""
        whole, count = self.image_inputs, len(self.images)
        patches = whole["image_grid_thw"].prod(-1).tolist() if "image_grid_thw" in whole else []
        parts = {
            key: value.split(patches if len(patches) and len(value) == sum(patches) else 1)
            for key, value in whole.items()
        }
        if any(len(of_key) != count for of_key in parts.values()):
            sizes = {key: tuple(value.shape) for key, value in whole.items()}
            raise UserError(
                f"row {self.id}: tensors of the sizes {sizes} cannot be split by its {count} images; use layout=padded"
            )
        return [{key: of_key[i] for key, of_key in parts.items()} for i in range(count)]


def digest_of(image_inputs: dict[str, torch.Tensor], before: bytes = b"") -> bytes:
    """16 bytes of a hash of `before` and the image tensors."""
    digest = hashlib.sha256(before)
    for name, values in sorted(image_inputs.items()):
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()[:16]
