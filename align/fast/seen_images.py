"""Keep image features in memory, for other rows, views and benchmarks that show the same image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from align.batches.padding import names_of
from align.batches.rendered import Rendered
from align.families import Family
from align.fast.images_once import ImageReuse, ImagesOnce

KEPT_BYTES = 2**30
"""Maximum size of the features in main memory. Further images are encoded each time."""


class KeptFeatures:
    """Image features in memory, by the hash of their tensors.

    Nothing is evicted, because another pass over a benchmark starts with the same images.
    """

    checked = True

    def __init__(self, limit: int = KEPT_BYTES):
        self._limit, self._bytes = limit, 0
        self._kept: dict[str, torch.Tensor] = {}

    def find(self, name: str) -> torch.Tensor | None:
        """Features of an image (tokens, hidden size); None if they are not kept."""
        return self._kept.get(name)

    def add(self, name: str, features: torch.Tensor) -> None:
        """Add the features of an image, if the limit allows."""
        if self._bytes + features.nbytes <= self._limit:
            self._bytes += features.nbytes
            self._kept[name] = features.detach().to("cpu", copy=True)

    def check(self, stored: Mapping[str, torch.Tensor], encoded: Mapping[str, torch.Tensor]) -> None:
        """Do nothing: this model computed all features itself."""


class SeenImages:
    """Wraps a loaded model whose weights do not change: each image is encoded once."""

    def __init__(self, model: Any, family: Family, limit: int = KEPT_BYTES):
        plain = model.get_base_model() if hasattr(model, "peft_config") else model
        reuse = ImageReuse(remembers=True, store=KeptFeatures(limit))
        self._once = ImagesOnce(plain.base_model, reuse) if family.lays_out else None

    @contextmanager
    def shown(self, rows: Sequence[Rendered]) -> Iterator[None]:
        """Context in which these rows are answered, in one batch. Raises UserError."""
        if self._once is None:
            yield
            return
        images = [inputs for row in rows if row.images for inputs in row.inputs_of_images()]
        self._once.keys = names_of(images)
        try:
            yield
        finally:
            self._once.keys = None
