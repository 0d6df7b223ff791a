"""The interface of a painter: a model or a function that makes or edits images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from align.answering.conversation import Failure
from align.rows import ImageRef

OUT_OF_MEMORY = "out_of_memory"
"""Reason of a failure: one image alone needs more memory than there is."""


@dataclass(frozen=True)
class Painting:
    """One image to make."""

    id: str
    prompt: str
    seed: int
    """Seed of this image; it depends on the item and the round, not on the batch."""
    image: ImageRef | None = None
    """The image to edit; None to make one from the prompt alone."""


@dataclass(frozen=True)
class Painted:
    """A finished image."""

    id: str
    png: bytes
    """The image, encoded as PNG."""
    seconds: float


class Painter(Protocol):
    """A model or function that makes images."""

    name: str
    """The section of its settings: painter, twin_editor."""
    identity: dict[str, Any]
    """Everything that its images depend on, in addition to the job."""
    edits: bool
    """Whether it uses a job's `image`; if not, it makes the image from the prompt alone."""

    def paint(self, jobs: Sequence[Painting]) -> Iterator[Painted | Failure]:
        """One image or failure per job, in any order."""

    def usage(self) -> str:
        """The usage so far, as a short text; empty if nothing is counted."""

    def release(self) -> None:
        """Free resources: device memory, connections."""


def name_of(painter: Painter) -> str:
    """The model's or function's own name, for records of origin."""
    return next(str(painter.identity[key]) for key in ("use", "model", "path") if painter.identity.get(key))
