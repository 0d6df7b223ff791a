"""Processors, with or without torchvision."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoProcessor, ProcessorMixin, Qwen2VLProcessor
from transformers.utils import is_torchvision_available


class _ImageOnlyQwen2VLProcessor(Qwen2VLProcessor):
    """Qwen2-VL's processor without its video part, the only part that needs torchvision.

    It saves in the stock layout, so that a checkpoint written here loads anywhere.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_: Any):
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        # Not Qwen2VLProcessor.__init__, which passes on a video processor that this class does not have.
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


# transformers writes a processor's class name into the files it saves and resolves it there when it loads them.
_ImageOnlyQwen2VLProcessor.__name__ = "Qwen2VLProcessor"

IMAGE_ONLY = {"qwen2_vl": _ImageOnlyQwen2VLProcessor}
"""Model types whose stock processor needs torchvision, and what is loaded where it is missing."""


def load_processor(path: str, revision: str | None = None) -> ProcessorMixin:
    """The processor of a model folder or hub id; image-only where torchvision is missing and the stock one needs it."""
    model_type = AutoConfig.from_pretrained(path, revision=revision).model_type
    loader = AutoProcessor if is_torchvision_available() else IMAGE_ONLY.get(model_type, AutoProcessor)
    return loader.from_pretrained(path, revision=revision)
