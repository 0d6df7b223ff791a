"""Number of patches and tokens of an image, from the model's configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

from align.errors import UserError
from align.settings import ModelSettings

PIXELS = {"qwen3_vl": (65_536, 16_777_216)}
"""{model type: fewest and most pixels of an image, of the published processors}"""
QWEN2_VL_PIXELS = (56 * 56, 28 * 28 * 16384)
TILES = 12
"""The most tiles of InternVL's published processors, without the small copy of the whole image."""
SPLIT = 4
"""The longest side of an image, in tiles, of the published processors of Idefics3 and SmolVLM."""


@dataclass(frozen=True)
class ImageTokens:
    """Size of one image inside the model."""

    patches: int
    """Positions of the vision tower, including CLIP's class token."""
    tokens: int
    """Positions of the language model."""


def image_tokens(config: Any, settings: ModelSettings, size: str) -> ImageTokens:
    """Patches and tokens of an image of `<width>x<height>` pixels. Raises UserError.

    Sizes that depend on the processor are those of the published ones.
    """
    width, height = _pixels(size)
    if hasattr(config.vision_config, "spatial_merge_size"):
        return _resized(config, settings, width, height)
    return COUNTS.get(config.model_type, _of_one_size)(config, width, height)


def side_of(vision: Any) -> int:
    """Pixels of one side of what the vision tower sees: an image, or a tile of it."""
    return vision.image_size[0] if isinstance(vision.image_size, list | tuple) else vision.image_size


def _resized(config: Any, settings: ModelSettings, width: int, height: int) -> ImageTokens:
    """Qwen2-VL to Qwen3-VL: the number of patches depends on the image's size."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    vision = config.vision_config
    patch, merge = vision.patch_size, vision.spatial_merge_size
    family = config.model_type.removesuffix("_moe")
    least, most = PIXELS.get(family, QWEN2_VL_PIXELS)
    least, most = settings.min_pixels or least, settings.max_pixels or most
    height, width = smart_resize(height, width, patch * merge, least, most)
    patches = (height // patch) * (width // patch)
    return ImageTokens(patches, patches // merge**2)


def _of_one_size(config: Any, width: int, height: int) -> ImageTokens:
    """LLaVA-1.5, Gemma 3: all images are resized to one size."""
    vision = config.vision_config
    patches = (side_of(vision) // vision.patch_size) ** 2
    if pooled := getattr(config, "mm_tokens_per_image", None):  # Gemma 3
        return ImageTokens(patches, pooled)
    has_class_token = vision.model_type == "clip_vision_model"
    keeps_it = getattr(config, "vision_feature_select_strategy", "default") == "full"
    return ImageTokens(patches + has_class_token, patches + (has_class_token and keeps_it))


def _anyres(config: Any, width: int, height: int) -> ImageTokens:
    """LLaVA-NeXT and LLaVA-OneVision: the whole image, and tiles of it without their padding."""
    from transformers import LlavaNextProcessor, LlavaOnevisionProcessor
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    vision, whole = config.vision_config, _of_one_size(config, width, height)
    # The processors' own count, which reads these attributes of a processor.
    kind: Any = LlavaNextProcessor if config.model_type == "llava_next" else LlavaOnevisionProcessor
    it = SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=config.image_grid_pinpoints),
        patch_size=vision.patch_size,
        num_additional_image_tokens=0,
        num_image_tokens=(side_of(vision) // vision.patch_size) ** 2,
        vision_aspect_ratio=getattr(config, "vision_aspect_ratio", None),
    )
    it._get_unpadded_features = partial(kind._get_unpadded_features, it)
    tokens = kind._get_number_of_features(it, height, width, side_of(vision), side_of(vision))
    tiles = image_size_to_num_patches([height, width], config.image_grid_pinpoints, side_of(vision))
    return ImageTokens(tiles * whole.patches, tokens)


def _internvl(config: Any, width: int, height: int) -> ImageTokens:
    """Tiles and, if there are several, a small copy of the image; a token before and one after them."""
    from transformers import GotOcr2ImageProcessorPil

    vision, side = config.vision_config, side_of(config.vision_config)
    sizes = {"size": {"height": side, "width": side}, "min_patches": 1, "max_patches": TILES}
    counted = GotOcr2ImageProcessorPil(crop_to_patches=True, **sizes).get_number_of_image_patches(height, width, {})
    patch = vision.patch_size[0] if isinstance(vision.patch_size, list | tuple) else vision.patch_size
    return ImageTokens(counted * ((side // patch) ** 2 + 1), counted * config.image_seq_length + 2)


def _idefics3(config: Any, width: int, height: int) -> ImageTokens:
    """Idefics3, SmolVLM: tiles and a small copy of the image; two marks and a line break for a tile, about."""
    from transformers import Idefics3ImageProcessorPil

    vision, side = config.vision_config, side_of(config.vision_config)
    sizes = {"size": {"longest_edge": SPLIT * side}, "max_image_size": {"longest_edge": side}}
    images = Idefics3ImageProcessorPil(do_image_splitting=True, **sizes)
    counted = images.get_number_of_image_patches(height, width, {})[0]
    patches = (side // vision.patch_size) ** 2
    return ImageTokens(counted * patches, counted * (patches // config.scale_factor**2 + 2))


def _mllama(config: Any, width: int, height: int) -> ImageTokens:
    """Llama 3.2 Vision: every image has the largest number of tiles; the language model reads one token."""
    vision = config.vision_config
    patches = (side_of(vision) // vision.patch_size) ** 2 + 1
    return ImageTokens(vision.max_num_tiles * patches, 1)


COUNTS: dict[str, Callable[[Any, int, int], ImageTokens]] = {
    "llava_next": _anyres,
    "llava_onevision": _anyres,
    "internvl": _internvl,
    "idefics3": _idefics3,
    "smolvlm": _idefics3,
    "mllama": _mllama,
}
"""{model type: (config, width, height) -> ImageTokens}"""


def _pixels(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise UserError(f"plan.image={size}: expected <width>x<height> in pixels, e.g. 640x480")
    return int(width), int(height)
