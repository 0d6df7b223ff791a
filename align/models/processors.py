"""Processors, with or without torchvision."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import transformers
from transformers import AutoConfig, AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import PROCESSOR_NAME, VIDEO_PROCESSOR_NAME, cached_file, is_torchvision_available

from align.errors import UserError
from align.settings import ModelSettings


def image_only(stock: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """A processor class without its video part, which is the only part that needs torchvision.

    It saves files in the stock format, so that a checkpoint written here loads anywhere.
    """

    class ImageOnly(stock):
        video_settings: dict[str, Any] | None = None
        """The published settings of the video part; they are saved unchanged."""
        video_processor = SimpleNamespace(num_frames=None, fps=None)
        """What SmolVLM's processor reads when it applies a template, also without videos."""

        @classmethod
        def get_attributes(cls) -> list[str]:
            return [part for part in super().get_attributes() if part != "video_processor"]

        @classmethod
        def from_args_and_dict(cls, args: Any, *rest: Any, **settings: Any) -> Any:
            return super().from_args_and_dict([*args, None], *rest, **settings)

        def to_dict(self) -> dict[str, Any]:
            values = super().to_dict()
            return values if self.video_settings is None else values | {"video_processor": self.video_settings}

    # transformers writes a processor's class name into saved files, and looks up this name when it loads them.
    ImageOnly.__name__ = stock.__name__
    return ImageOnly


def _stock(model_type: str) -> type[ProcessorMixin] | None:
    """The class of a model type's processor; None if transformers does not know it."""
    name = PROCESSOR_MAPPING_NAMES.get(model_type)
    return getattr(transformers, name, None) if name else None


def _without_videos(path: str, model_type: str, revision: str | None) -> ProcessorMixin:
    """The processor of a model, without its video part if it has one."""
    stock = _stock(model_type)
    if stock is None or "video_processor" not in stock.get_attributes():
        return AutoProcessor.from_pretrained(path, revision=revision)
    processor = image_only(stock).from_pretrained(path, revision=revision)
    processor.video_settings = _video_settings(path, revision) or _video_settings_of(processor.image_processor, stock)
    return processor


def _video_settings(path: str, revision: str | None) -> dict[str, Any] | None:
    """The published settings of the video part of a processor, from either file that may have them."""
    for name, of in ((PROCESSOR_NAME, "video_processor"), (VIDEO_PROCESSOR_NAME, None)):
        file = cached_file(
            path, name, revision=revision, _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
        values = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
        if found := values if of is None else values.get(of):
            return dict(found)
    return None


def _video_settings_of(images: Any, stock: type[ProcessorMixin]) -> dict[str, Any]:
    """Settings of a video part that a model does not publish (Qwen2-VL): those of its images, where it shares them."""
    values = images.to_dict()
    shared = ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std", "size")
    own = {key: values[key] for key in shared if key in values} if "merge_size" in values else {}
    return own | {"video_processor_type": stock.__name__.removesuffix("Processor") + "VideoProcessor"}


def load_processor(path: str, settings: ModelSettings | None = None) -> ProcessorMixin:
    """The processor of a model folder or Hub id; image-only if the stock processor needs torchvision and it is absent.

    Raises UserError for image settings that the processor does not support.
    """
    settings = settings or ModelSettings()
    model_type = AutoConfig.from_pretrained(path, revision=settings.revision).model_type
    if is_torchvision_available():
        processor = AutoProcessor.from_pretrained(path, revision=settings.revision)
    else:
        processor = _without_videos(path, model_type, settings.revision)
    if settings.image_aspect_ratio not in (None, "pad"):
        raise UserError(f"model.image_aspect_ratio={settings.image_aspect_ratio}: expected pad, or null")
    _bound_pixels(processor.image_processor, settings)
    return processor


def _bound_pixels(image_processor: Any, settings: ModelSettings) -> None:
    """Set the pixel limits of an image processor, which stores them as `shortest_edge` and `longest_edge`."""
    given = {"shortest_edge": settings.min_pixels, "longest_edge": settings.max_pixels}
    given = {name: pixels for name, pixels in given.items() if pixels is not None}
    if given and not hasattr(image_processor, "merge_size"):
        raise UserError(
            f"model.min_pixels, model.max_pixels: {type(image_processor).__name__} resizes all images to one size; "
            "remove these settings"
        )
    if given:
        size = dict(image_processor.size) | given
        if size["shortest_edge"] > size["longest_edge"]:
            raise UserError(
                f"model.min_pixels={size['shortest_edge']} is more than model.max_pixels={size['longest_edge']} (an "
                "absent setting has the processor's value), so the number of image tokens would have no limit; give "
                "both settings"
            )
        image_processor.size = type(image_processor.size)(**size)
