"""Models whose rows cannot share a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.errors import UserError
from align.families import Family
from align.methods.distributed import in_step_by_images
from align.rows import Row
from align.settings import RunConfig


def refuse_shared_passes(config: RunConfig, family: Family, arguments: Any, rows: Sequence[Row]) -> None:
    """Raises UserError if rows of a family that does not mix them would share a forward pass."""
    if family.mixes_rows or not any(row.images for row in rows):
        return
    why = f"model type {family.model_type}: rows of one forward pass would see each other's images"
    if hasattr(arguments, "proportion"):
        raise UserError(
            f"{why}, and method={config.method} needs harmful and benign rows in each pass; use another model or method"
        )
    for name in ("per_device_train_batch_size", "rollout_batch_size"):
        if getattr(arguments, name, None) not in (None, 1):
            raise UserError(f"{why}; set train.{name}=1 (the result of a step is the same)")
    if in_step_by_images(arguments):
        raise UserError(
            f"{why}, and with this launcher a pass without images gets a dummy image; launch it with ddp.yaml, and without "
            "train.ddp_find_unused_parameters=false"
        )
