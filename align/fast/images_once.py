"""Encode each image once, for all rows that show it and for the policy and the reference model."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from align.families import ENCODES_IMAGES, Family


@dataclass
class ImageReuse:
    """When image features may be reused."""

    frozen: bool = False
    """The vision tower and projector are not trained. With gradient checkpointing, transformers
    requires gradients of every tower's embeddings. Without this flag, a frozen tower would be
    recomputed and included in the backward pass for nothing."""
    remembers: bool = False
    """The next pass has the same vision tower and projector: images of the last pass, and cached
    images, are not encoded again."""
    store: Any = None
    """An `align.fast.feature_store.FeatureStore`, or None."""


class ImagesOnce:
    """Wraps a model's `get_image_features`: each image is encoded once and its features are reused.

    During a forward pass, `order` (shown,) is the index of the image at each place, and `keys`
    (images, 16) identify the images (align/batches/padding.py).
    """

    def __init__(self, base_model: Any, reuse: ImageReuse | None = None):
        self.order: torch.Tensor | None = None
        self.keys: torch.Tensor | None = None
        self.reuse = reuse or ImageReuse()
        self.encoded = (0, 0)
        """(Images, patches) that the last pass with images encoded; patches are 0 if all images
        have the same number. The caller resets it."""
        self._last: dict[str, torch.Tensor] = {}
        if not hasattr(base_model, "get_image_features"):  # Llama 3.2 Vision reads images inside its forward
            return
        self._encode = base_model.get_image_features
        self._signature = inspect.signature(self._encode)

        @functools.wraps(self._encode)  # `generate` reads the signature to decide which arguments to pass
        def get_image_features(*args: Any, **kwargs: Any) -> Any:
            return self._get_image_features(*args, **kwargs)

        base_model.get_image_features = get_image_features

    def _get_image_features(self, *args: Any, **kwargs: Any) -> Any:
        call = self._signature.bind(*args, **kwargs).arguments
        call |= call.pop("kwargs", {})
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.reuse.frozen):
            if self.reuse.remembers and self.keys is not None:
                output = self._only_new(call, [bytes(key).hex() for key in self.keys.tolist()])
            else:
                output = self._counted(call)
        if self.order is not None:
            output.pooler_output = [output.pooler_output[i] for i in self.order.tolist()]
        return output

    def _only_new(self, call: dict[str, Any], names: list[str]) -> Any:
        there = {name: self._last[name] for name in names if name in self._last}
        stored = self._stored([name for name in names if name not in there])
        if self.reuse.store is not None and self.reuse.store.checked:
            there |= {name: features.to(call["pixel_values"].device) for name, features in stored.items()}
        if new := [i for i, name in enumerate(names) if name not in there and name not in names[:i]]:
            features = self._counted(_of(call, new, len(names))).pooler_output
            encoded = dict(zip((names[i] for i in new), features, strict=True))
            if self.reuse.store is not None:
                self.reuse.store.check(stored, encoded)
                for name in encoded.keys() - stored.keys():
                    self.reuse.store.add(name, encoded[name])
            there |= encoded
        self._last = there
        return BaseModelOutputWithPooling(pooler_output=[there[name] for name in names])

    def _stored(self, names: list[str]) -> dict[str, torch.Tensor]:
        found = {} if self.reuse.store is None else {name: self.reuse.store.find(name) for name in names}
        return {name: features for name, features in found.items() if features is not None}

    def _counted(self, call: dict[str, Any]) -> Any:
        pixels, grid = call["pixel_values"], call.get("image_grid_thw")
        self.encoded = (len(pixels), 0) if grid is None else (len(grid), len(pixels))
        return self._encode(**call)


def _of(call: dict[str, Any], wanted: list[int], count: int) -> dict[str, Any]:
    """The same call for the `wanted` of `count` images.

    Selects tensors with an entry per image or per patch.
    """
    if len(wanted) == count:
        return call
    grid = call.get("image_grid_thw")
    lines = {key: value for key, value in call.items() if torch.is_tensor(value) and len(value) == count}
    if grid is not None:
        lines["pixel_values"] = call["pixel_values"].split(grid.prod(-1).tolist())
    return call | {
        key: torch.cat([value[i] for i in wanted]) if isinstance(value, tuple) else value[wanted]
        for key, value in lines.items()
    }


def encoders(model: Any, family: Family) -> dict[str, torch.nn.Parameter]:
    """The parameters of the vision tower and projector, by name."""
    return {name: p for name, p in model.named_parameters() if family.tower_of(name) in ENCODES_IMAGES}


def unchanged(model: Any, family: Family) -> bool:
    """Whether a model's image features equal those of its base and never change.

    The vision tower and projector then have no trained parameters, adapters or dropout.
    """
    changed = any(
        p.requires_grad or "lora_" in name or ".modules_to_save." in name for name, p in encoders(model, family).items()
    )
    drops = family.lays_out and any(
        value for key, value in model.config.vision_config.to_dict().items() if "drop" in key
    )
    return family.lays_out and not changed and not drops
