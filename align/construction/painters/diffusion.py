"""A painter that is a diffusers pipeline on this machine: text-to-image, image-to-image or image edit."""

from __future__ import annotations

import gc
import logging
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from align.answering.address import check_address
from align.answering.conversation import Failure
from align.config.paths import own_name
from align.construction.painters.checks import is_black, refuse_unused
from align.construction.painters.function import encoded
from align.construction.painters.painter import OUT_OF_MEMORY, Painted, Painting
from align.construction.painters.pipeline_class import accepted, class_of, identity_of, same_for_all
from align.construction.painters.pipeline_loading import check_settings, is_out_of_memory, load
from align.data.images import image_size, load_image
from align.errors import UserError
from align.rows import ImageRef
from align.settings import PainterSettings

LOG = logging.getLogger(__name__)
OF_ENDPOINTS = ("concurrency", "timeout", "retries", "extra", "price_in", "price_out", "max_calls", "max_cost")
TAKES_A_BATCH = re.compile(r"Img2Img|InstructPix2Pix|FluxKontextPipeline")
"""Classes that edit each image of a list. To others a list is several references for one image, or is not allowed."""
FIRST_FAILURES, FAILURES = 3, 20
"""If so many images fail in a row, before or after the first one that succeeds, the cause is not a single image."""
FLAGS = ("nsfw_content_detected", "nsfw_detected")
"""Fields of a pipeline's output: whether its safety checker replaced each image."""
Shown = list[tuple[Painting, Image.Image | None]]
"""Jobs with their decoded images."""


class DiffusionPainter:
    """A diffusers pipeline, loaded at the first image. An image depends on its job's seed, not on the batch."""

    def __init__(self, name: str, settings: PainterSettings):
        """Raises UserError for invalid settings, and for a path that is not a pipeline; no weights are loaded."""
        check_address(settings, name)
        refuse_unused(
            settings, name, OF_ENDPOINTS, f"this is for an endpoint, and {name}.path= is a pipeline; remove it"
        )
        check_settings(name, settings)
        self._class = class_of(name, settings)
        if settings.revision is not None and Path(str(settings.path)).is_dir():
            raise UserError(
                f"{name}.revision={settings.revision} is for a pipeline on the Hub, and {name}.path={settings.path} "
                f"is a folder; remove {name}.revision="
            )
        self._arguments = same_for_all(name, settings, self._class)
        self.name, self._settings = name, settings
        self.edits = "image" in accepted(self._class)
        self.identity: dict[str, Any] = {
            "model": own_name(str(settings.path)),
            "revision": settings.revision,
            "dtype": settings.dtype,
            "arguments": self._arguments,
        } | identity_of(str(settings.path))
        self._pipeline: Any = None
        self._batch_size = settings.batch_size
        self._failures, self._succeeded = 0, False
        """Errors of the pipeline in a row, and whether it has ever made an image."""

    def paint(self, jobs: Sequence[Painting]) -> Iterator[Painted | Failure]:
        """One image or failure per job; jobs that share a batch come together.

        Raises UserError if the pipeline cannot be loaded, or fails for many images in a row.
        """
        self._pipeline = self._pipeline or load(self.name, self._settings)
        groups: dict[Any, list[Painting]] = {}
        for job in jobs:
            try:
                groups.setdefault(self._group(job), []).append(job)
            except UserError as error:
                yield Failure(job.id, "missing_image", str(error))
        for waiting in groups.values():
            while waiting:
                batch = waiting[: self._batch_size]
                found = self._batch(batch)
                if found is not None:
                    del waiting[: len(batch)]
                    yield from found

    def usage(self) -> str:
        """Return an empty text: local pipelines have no cost."""
        return ""

    def release(self) -> None:
        """Free its memory; it is loaded again at the next image."""
        self._pipeline = None
        _free()

    def _group(self, job: Painting) -> Any:
        """Jobs with an equal value may be in one batch. Raises UserError if the header of its image cannot be read."""
        image = self._image_of(job)
        if image is None:
            return None
        return image_size(image, f"item {job.id}") if TAKES_A_BATCH.search(self._class.__name__) else (job.id,)

    def _image_of(self, job: Painting) -> ImageRef | None:
        return job.image if self.edits else None

    def _batch(self, jobs: Sequence[Painting]) -> list[Painted | Failure] | None:
        """The results of a batch; None if it is to be tried again with a smaller batch size."""
        shown: Shown = []
        failed: list[Painted | Failure] = []
        for job in jobs:
            image = self._image_of(job)
            try:
                shown.append((job, load_image(image, f"item {job.id}") if image else None))
            except UserError as error:
                failed.append(Failure(job.id, "missing_image", str(error)))
        if not shown:
            return failed
        begun = time.monotonic()
        try:
            output = self._pipeline(**self._call(shown))
        except Exception as error:
            short, detail = is_out_of_memory(error), f"{type(error).__name__}: {error}"
        else:
            self._failures, self._succeeded = 0, True
            return failed + self._results(shown, output, (time.monotonic() - begun) / len(shown))
        # After the handler, because the error's traceback holds the tensors of the call.
        self._free_after_error()
        if short and len(shown) > 1:
            self._batch_size = len(shown) // 2
            LOG.warning(f"{self.name}: {len(shown)} images need more memory than there is; now {self._batch_size}")
            return None
        if short:
            return [*failed, self._out_of_memory(shown[0][0], detail)]
        return failed + self._without(shown, detail)

    def _without(self, shown: Shown, detail: str) -> list[Painted | Failure]:
        """After an error of the pipeline: each image by itself, because one of them may be the cause."""
        if len(shown) > 1:
            return [found for job, _ in shown for found in self._batch([job]) or ()]
        (job, image), kind = shown[0], self._class.__name__
        self._failures += 1
        if self._failures >= (FAILURES if self._succeeded else FIRST_FAILURES):
            raise UserError(
                f"{self.name}.path={self._settings.path}: {kind} failed for {self._failures} images in a row, last "
                f"for item {job.id}: {detail}; its arguments: {self._arguments}. Correct {self.name}.call= and the "
                "other settings"
            )
        advice = f"check {self.name}.call= and the item's image"
        if self.edits and image is None:
            advice = f"{kind} edits images, and the item has none; give {self.name}.path= of a text-to-image pipeline"
        return [Failure(job.id, "declined", f"{kind}: {detail}", help=advice)]

    def _call(self, shown: Shown) -> dict[str, Any]:
        """The arguments of a call. A single image is given as in the documentation of every pipeline, without lists."""
        generators = [torch.Generator("cpu").manual_seed(job.seed) for job, _ in shown]
        each: dict[str, list[Any]] = {"prompt": [job.prompt for job, _ in shown], "generator": generators}
        if shown[0][1] is not None:
            each["image"] = [image for _, image in shown]
        if len(shown) == 1:
            return self._arguments | {key: values[0] for key, values in each.items()}
        same = {  # pipelines expect negative_prompt, prompt_2 and so on to be a list if the prompt is one
            key: [value] * len(shown) if isinstance(value, str) and "prompt" in key else value
            for key, value in self._arguments.items()
        }
        return same | each

    def _results(self, shown: Shown, output: Any, seconds: float) -> list[Painted | Failure]:
        images = getattr(output, "images", None)
        if not isinstance(images, list) or len(images) != len(shown) or not all(map(_is_image, images)):
            raise UserError(
                f"{self.name}.path={self._settings.path}: {self._class.__name__} does not return one image for each "
                "prompt; give a pipeline that makes or edits images"
            )
        flags = next((found for key in FLAGS if (found := getattr(output, key, None))), None) or [False] * len(shown)
        return [
            self._result(job, image, bool(flag), seconds)
            for (job, _), image, flag in zip(shown, images, flags, strict=True)
        ]

    def _result(self, job: Painting, image: Image.Image, flagged: bool, seconds: float) -> Painted | Failure:
        if flagged:
            return Failure(job.id, "declined", "the pipeline's safety checker replaced the image", final=True)
        if is_black(image):
            advice = f"if this is frequent, give {self.name}.dtype=float32 or bfloat16: float16 may overflow"
            return Failure(job.id, "declined", "the image is completely black", help=advice)
        return Painted(job.id, encoded(image), seconds)

    def _out_of_memory(self, job: Painting, detail: str) -> Failure:
        settings, name = self._settings, self.name
        advice = f"give a smaller {name}.width= and {name}.height="
        if settings.offload != "sequential" and settings.device != "cpu":
            advice = f"give {name}.offload={'sequential' if settings.offload else 'model'}, or {advice.removeprefix('give ')}"
        return Failure(job.id, OUT_OF_MEMORY, detail, help=advice)

    def _free_after_error(self) -> None:
        if self._settings.offload == "model":
            self._pipeline.maybe_free_model_hooks()  # the part that failed is still on the GPU
        _free()


def _is_image(found: object) -> bool:
    return isinstance(found, Image.Image)


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()
