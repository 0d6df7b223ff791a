"""Fast image tensors, bitwise the same as those of CLIP's and Qwen2-VL's image processors.

An image processor rescales and normalises every pixel. Here it does so once for each of the 256
byte values in each channel, and pixels are looked up in that table after resizing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, LlavaProcessor, Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

BICUBIC = Image.Resampling.BICUBIC
COVERED = {
    "do_convert_rgb": True,
    "do_resize": True,
    "resample": BICUBIC,
    "do_rescale": True,
    "do_normalize": True,
}
"""Settings of an image processor that this module supports; with other settings the processor
itself is used."""
COVERED_CLIP = COVERED | {"do_center_crop": True}
NUMBERS = {
    "rescale_factor",
    "image_mean",
    "image_std",
    "size",
    "crop_size",
    "patch_size",
    "temporal_patch_size",
    "merge_size",
}
"""Settings that may have any value."""
OF_FILES = {"image_processor_type", "processor_class", "default_to_square", "data_format", "min_pixels", "max_pixels"}
"""Entries of the processor's file that do not change the tensors: the sizes are in `size`."""

Inputs = dict[str, torch.Tensor]


class Images(Protocol):
    """How the images of a row become tensors and tokens."""

    def inputs(self, images: Sequence[Image.Image]) -> tuple[Inputs, list[int]]:
        """(`image_inputs` of a row, image tokens of each image)."""

    def tokens(self, width: int, height: int) -> int | None:
        """Image tokens of an image of that size; None if only the tensors show their number."""

    def resized(self, image: Image.Image) -> Image.Image:
        """The image in its final size, with which another program cannot resize it differently; unchanged if unknown."""


@dataclass(frozen=True)
class AsTheProcessor:
    """The processor's own image processor.

    Used for other settings, and for other classes such as torchvision's.
    """

    processor: Any

    def inputs(self, images: Sequence[Image.Image]) -> tuple[Inputs, list[int]]:
        """(`image_inputs` of a row, image tokens of each image)."""
        made = dict(self.processor.image_processor([list(images)], return_tensors="pt"))
        if "image_grid_thw" in made:
            return made, [
                int(n) // self.processor.image_processor.merge_size**2 for n in made["image_grid_thw"].prod(-1)
            ]
        return made, [_tokens_of(self.processor, *shown.shape[-2:]) for shown in made["pixel_values"]]

    def tokens(self, width: int, height: int) -> None:
        """Always None: the number is known only from the tensors."""

    def resized(self, image: Image.Image) -> Image.Image:
        """The image itself: the processor resizes it."""
        return image


@dataclass(frozen=True)
class Cropped:
    """LLaVA-1.5: the shorter side is resized to one length, then the image is center-cropped."""

    table: np.ndarray
    """(3, 256) float32"""
    edge: int
    crop: tuple[int, int]
    """(height, width)"""
    tokens_of_each: int

    def inputs(self, images: Sequence[Image.Image]) -> tuple[Inputs, list[int]]:
        """(`pixel_values` (images, 3, height, width), image tokens of each image)."""
        pixels = np.empty((len(images), 3, *self.crop), np.float32)
        for image, filled in zip(images, pixels, strict=True):
            for channel, values in enumerate(self._cut(image)):
                np.take(
                    self.table[channel], values, out=filled[channel], mode="clip"
                )  # clip: faster, because a byte needs no check of bounds
        return {"pixel_values": torch.from_numpy(pixels)}, [self.tokens_of_each] * len(images)

    def tokens(self, width: int, height: int) -> int:
        """Image tokens of an image of that size."""
        return self.tokens_of_each

    def resized(self, image: Image.Image) -> Image.Image:
        """The center crop of the resized image."""
        return Image.fromarray(np.ascontiguousarray(self._cut(image).transpose(1, 2, 0)))

    def _cut(self, image: Image.Image) -> np.ndarray:
        """The center crop of a resized image, (3, height, width) bytes."""
        shorter = min(image.size)
        width, height = (int(self.edge * side / shorter) for side in image.size)
        top, left = ((have - want) // 2 for have, want in zip((height, width), self.crop, strict=True))
        cut = image.resize((width, height), BICUBIC).crop((left, top, left + self.crop[1], top + self.crop[0]))
        return np.ascontiguousarray(np.asarray(cut).transpose(2, 0, 1))


@dataclass(frozen=True)
class Patches:
    """Qwen2-VL: an image is resized to whole patches, in the order in which they are merged."""

    table: np.ndarray
    """(3, 256) float32"""
    pixels: tuple[int, int]
    """Minimum and maximum number of pixels of an image."""
    patch: int
    merge: int
    frames: int
    """Number of video frames in a patch; an image is repeated as each frame."""

    def inputs(self, images: Sequence[Image.Image]) -> tuple[Inputs, list[int]]:
        """(Inputs of a row, image tokens of each image).

        `pixel_values` (patches, 3 x frames x patch x patch), `image_grid_thw` (images, 3).
        """
        each = [self._patches(image) for image in images]
        pixels = each[0] if len(each) == 1 else np.concatenate(each)
        sides = [self._sides(*image.size) for image in images]
        grids = torch.tensor([[1, height // self.patch, width // self.patch] for height, width in sides])
        tokens = [self.tokens(*image.size) for image in images]
        return {"pixel_values": torch.from_numpy(pixels), "image_grid_thw": grids}, tokens

    def tokens(self, width: int, height: int) -> int:
        """Image tokens of an image of that size."""
        rows, columns = (side // (self.patch * self.merge) for side in self._sides(width, height))
        return rows * columns

    def resized(self, image: Image.Image) -> Image.Image:
        """The image, resized to whole patches."""
        height, width = self._sides(*image.size)
        return image.resize((width, height), BICUBIC)

    def _sides(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) to which an image is resized."""
        return smart_resize(height, width, self.patch * self.merge, *self.pixels)

    def _patches(self, image: Image.Image) -> np.ndarray:
        """(patches, 3 x frames x patch x patch) of one image."""
        side, merged = self.patch, self.patch * self.merge
        height, width = self._sides(*image.size)
        resized = np.asarray(self.resized(image))
        split = resized.reshape(height // merged, self.merge, side, width // merged, self.merge, side, 3)
        # Transpose bytes, not float32 numbers of four times the size: (3, rows, columns, merge,
        # merge, side, side)
        ordered = np.ascontiguousarray(split.transpose(6, 0, 3, 1, 4, 2, 5)).reshape(3, -1, side * side)
        filled = np.empty((ordered.shape[1], 3, self.frames, side * side), np.float32)
        for channel, values in enumerate(ordered):
            filled[:, channel] = np.take(self.table[channel], values, mode="clip")[:, None]
        return filled.reshape(len(filled), -1)


def images_of(processor: Any) -> Images:
    """The fast transform if it supports a processor's settings, otherwise the processor itself."""
    images = processor.image_processor
    values = {key: value for key, value in images.to_dict().items() if value is not None and key not in OF_FILES}
    settings = {key: value for key, value in values.items() if key not in NUMBERS}
    size = {edge: length for edge, length in dict(images.size).items() if length is not None}
    three = all(isinstance(of, list | tuple) and len(of) == 3 for of in (images.image_mean, images.image_std))
    if type(images) is CLIPImageProcessorPil and isinstance(processor, LlavaProcessor):
        crop = (images.crop_size["height"], images.crop_size["width"])
        fits = size.keys() == {"shortest_edge"} and max(crop) <= size["shortest_edge"]
        if three and fits and settings == COVERED_CLIP:
            return Cropped(_table(images), size["shortest_edge"], crop, _tokens_of(processor, *crop))
    elif type(images) is Qwen2VLImageProcessorPil:
        bounded = size.keys() == {"shortest_edge", "longest_edge"}
        if three and bounded and settings == COVERED:
            geometry = images.patch_size, images.merge_size, images.temporal_patch_size
            return Patches(_table(images), (size["shortest_edge"], size["longest_edge"]), *geometry)
    return AsTheProcessor(processor)


def _tokens_of(processor: Any, height: int, width: int) -> int:
    """LLaVA-1.5's image tokens at that size: one per patch, plus CLIP's class token if kept."""
    patches = (height // processor.patch_size) * (width // processor.patch_size)
    return patches + processor.num_additional_image_tokens - (processor.vision_feature_select_strategy == "default")


def _table(images: Any) -> np.ndarray:
    """(3, 256) float32: the image processor's number for each channel and byte value."""
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 256).repeat(3, axis=0)
    scaled = images.rescale(every, images.rescale_factor)
    return np.ascontiguousarray(images.normalize(scaled, images.image_mean, images.image_std).reshape(3, 256))
