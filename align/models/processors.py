"""Processors, with or without torchvision."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoProcessor, ProcessorMixin, Qwen2VLProcessor
from transformers.utils import is_torchvision_available

from align.errors import UserError
from align.settings import ModelSettings


class _ImageOnlyQwen2VLProcessor(Qwen2VLProcessor):
    """Qwen2-VL's processor without its video part, the only part that needs torchvision.

    It saves files in the stock format, so that a checkpoint written here loads anywhere.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_: Any):
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        # Qwen2VLProcessor.__init__ would require a video processor, which this class does not have.
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def to_dict(self) -> dict[str, Any]:
        """The stock processor's settings: its video part shares the image part's patch geometry."""
        values = super().to_dict()
        shared = ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std", "size")
        image = values.get("image_processor", {})
        values["video_processor"] = {key: image[key] for key in shared if key in image} | {
            "video_processor_type": "Qwen2VLVideoProcessor"
        }
        return values


# transformers writes a processor's class name into saved files, and looks up this name when it loads them.
_ImageOnlyQwen2VLProcessor.__name__ = "Qwen2VLProcessor"

IMAGE_ONLY = {"qwen2_vl": _ImageOnlyQwen2VLProcessor}
"""{model type whose stock processor needs torchvision: processor to load without torchvision}"""


def load_processor(path: str, settings: ModelSettings | None = None) -> ProcessorMixin:
    """The processor of a model folder or Hub id; image-only if the stock processor needs torchvision and it is absent.

    Raises UserError for image settings that the processor does not support.
    """
    settings = settings or ModelSettings()
    model_type = AutoConfig.from_pretrained(path, revision=settings.revision).model_type
    loader = AutoProcessor if is_torchvision_available() else IMAGE_ONLY.get(model_type, AutoProcessor)
    processor = loader.from_pretrained(path, revision=settings.revision)
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
