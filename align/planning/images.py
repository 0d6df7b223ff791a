"""Number of patches and tokens of an image, from the model's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.errors import UserError
from align.settings import ModelSettings

MIN_PIXELS, MAX_PIXELS = 56 * 56, 28 * 28 * 16384
"""Defaults of the published processors of Qwen2-VL."""


@dataclass(frozen=True)
class ImageTokens:
    """Size of one image inside the model."""

    patches: int
    """Positions of the vision tower, including CLIP's class token."""
    tokens: int
    """Positions of the language model."""


def image_tokens(config: Any, settings: ModelSettings, size: str) -> ImageTokens:
    """Patches and tokens of an image of `<width>x<height>` pixels. Raises UserError."""
    width, height = _pixels(size)
    vision = config.vision_config
    patch = vision.patch_size
    if merge := getattr(vision, "spatial_merge_size", None):  # Qwen2-VL: depends on the image's size
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        least, most = settings.min_pixels or MIN_PIXELS, settings.max_pixels or MAX_PIXELS
        height, width = smart_resize(height, width, patch * merge, least, most)
        patches = (height // patch) * (width // patch)
        return ImageTokens(patches, patches // merge**2)
    patches = (vision.image_size // patch) ** 2  # all images are resized to one size
    if pooled := getattr(config, "mm_tokens_per_image", None):  # Gemma 3
        return ImageTokens(patches, pooled)
    has_class_token = vision.model_type == "clip_vision_model"
    keeps_it = getattr(config, "vision_feature_select_strategy", "default") == "full"
    return ImageTokens(patches + has_class_token, patches + (has_class_token and keeps_it))


def _pixels(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise UserError(f"plan.image={size}: expected <width>x<height> in pixels, e.g. 640x480")
    return int(width), int(height)
