"""A painter that is a function: `module:function`, from jobs to one image per job."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from PIL import Image

from align.answering.conversation import Failure
from align.construction.painters.painter import Painted, Painting
from align.errors import UserError

Function = Callable[[Sequence[Painting]], Iterable[Image.Image]]
"""Jobs -> one image per job, in their order. Draws use `job.seed`."""


class FunctionPainter:
    """A function in the place of an image model; it gets the job's image, and may edit it."""

    edits = True

    def __init__(self, name: str, use: str, function: Function):
        self.name, self._function = name, function
        self.identity: dict[str, Any] = {"use": use, "version": getattr(function, "version", None)}

    def paint(self, jobs: Sequence[Painting]) -> Iterator[Painted | Failure]:
        """One image per job. Raises UserError if the function does not give one image per job."""
        begun = time.monotonic()
        images = list(self._function(jobs))
        if len(images) != len(jobs) or not all(isinstance(image, Image.Image) for image in images):
            raise UserError(
                f"{self.name}.use={self.identity['use']}: {len(images)} results for {len(jobs)} jobs; expected one PIL "
                "image for each job"
            )
        seconds = (time.monotonic() - begun) / max(len(jobs), 1)
        for job, image in zip(jobs, images, strict=True):
            yield Painted(job.id, encoded(image), seconds)

    def usage(self) -> str:
        """Return an empty text: functions have no cost."""
        return ""

    def release(self) -> None:
        """Do nothing: a function holds nothing that is freed here."""


def encoded(image: Image.Image) -> bytes:
    """An image as PNG bytes, RGB, without metadata."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()
