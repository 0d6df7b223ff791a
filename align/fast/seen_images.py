"""Images that a model has seen: their features are kept, for other rows, views and benchmarks that show the same image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from align.batches.padding import names_of
from align.batches.rendering import Rendered
from align.families import Family
from align.fast.images_once import ImageReuse, ImagesOnce

KEPT_BYTES = 2**30
"""Features that are kept in main memory, at most; images beyond are encoded each time."""


class KeptFeatures:
    """The features of images, by the hash of their tensors. What is kept stays: another pass over a benchmark asks for the first first."""

    checked = True

    def __init__(self, limit: int = KEPT_BYTES):
        self._limit, self._bytes = limit, 0
        self._kept: dict[str, torch.Tensor] = {}

    def find(self, name: str) -> torch.Tensor | None:
        """(tokens, hidden size) of an image; None where it is not kept."""
        return self._kept.get(name)

    def add(self, name: str, features: torch.Tensor) -> None:
        """One image more, if there is room."""
        if self._bytes + features.nbytes <= self._limit:
            self._bytes += features.nbytes
            self._kept[name] = features.detach().to("cpu", copy=True)

    def check(self, stored: Mapping[str, torch.Tensor], encoded: Mapping[str, torch.Tensor]) -> None:
        """Nothing: this model has made them all."""


class SeenImages:
    """Wraps a loaded model, whose weights stay as they are: each image that it is shown is encoded once."""

    def __init__(self, model: Any, family: Family, limit: int = KEPT_BYTES):
        plain = model.get_base_model() if hasattr(model, "peft_config") else model
        reuse = ImageReuse(remembers=True, store=KeptFeatures(limit))
        self._once = ImagesOnce(plain.base_model, reuse) if family.lays_out else None

    @contextmanager
    def shown(self, rows: Sequence[Rendered]) -> Iterator[None]:
        """These rows are answered within, in one batch. Raises UserError."""
        if self._once is None:
            yield
            return
        images = [inputs for row in rows if row.images for inputs in row.inputs_of_images()]
        self._once.keys = names_of(images)
        try:
            yield
        finally:
            self._once.keys = None
