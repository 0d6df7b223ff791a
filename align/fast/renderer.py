"""A fast renderer, for processors that it supports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
)

from align.batches.rendered import Rendered
from align.batches.rendering import Renderer, where_of
from align.data.images import encode_png, image_size
from align.families import Family
from align.fast.image_transform import images_of
from align.fast.templates import around
from align.rows import Row
from align.settings import ModelSettings

KNOWN = (LlavaProcessor, Qwen2VLProcessor, Qwen2_5_VLProcessor, Qwen3VLProcessor)
"""Supported processors: they represent an image as one repeated token."""
TYPES = "mm_token_type_ids"
"""Output of Qwen-VL processors in addition to the token ids: 1 for an image token, otherwise
0."""


def renderer_of(processor: Any, family: Family, settings: ModelSettings | None = None) -> Renderer:
    """The fast renderer if it gives the same as the plain one, otherwise the plain one."""
    return faster(Renderer(processor, family, settings))


def faster(plain: Renderer) -> Renderer:
    """A fast renderer, or `plain` if the fast one is not known to give the same."""
    if not _is_known(plain.processor):
        return plain
    try:
        expected = _probed(plain)
        fast = FastRenderer(plain, typed=TYPES in expected[0].aligned)
        agree = all(same(*pair) for pair in zip(expected, _probed(fast), strict=True))
    except Exception:  # a template that trims, or an image token in a system prompt: the plain path raises it too
        return plain
    return fast if agree else plain


class FastRenderer(Renderer):
    """The results of a plain renderer, in less time.

    `typed`: whether the processor returns token types (`TYPES`).
    """

    def __init__(self, plain: Renderer, typed: bool = False):
        vars(self).update(vars(plain))
        self.typed = typed
        self.images = images_of(self.processor)
        self._around: dict[tuple[tuple[str, ...], ...], list[str] | None] = {}

    def around(self, row: Row, answer: str | None) -> list[str] | None:
        """The template's pieces around the texts of such rows; None if it must render each row."""
        turns = self._turns(row, answer)
        shape = tuple((turn["role"], *(part["type"] for part in turn["content"])) for turn in turns)
        if shape not in self._around:
            template = self.processor.chat_template
            variables = self.processor.tokenizer.special_tokens_map | dict(self.settings.template)
            variables |= {"add_generation_prompt": answer is None}
            # If there are several templates, the processor must choose one.
            pieces = around(template, turns, variables) if isinstance(template, str) else None
            whole = super().written(row, answer)
            self._around[shape] = pieces if pieces and _joined(pieces, turns) == whole else None
        return self._around[shape]

    def written(self, row: Row, answer: str | None = None) -> str:
        """As the plain renderer's, from pieces where the template allows it."""
        pieces = self.around(row, answer)
        return super().written(row, answer) if pieces is None else _joined(pieces, self._turns(row, answer))

    def _tokenised(self, texts: Sequence[str]) -> list[list[int]]:
        backend = self.processor.tokenizer.backend_tokenizer
        adds = [self.adds_tokens(text) for text in texts]
        # An earlier call may have left settings in the tokenizer, which only its own call resets.
        left = backend.padding is not None or backend.truncation is not None or backend.encode_special_tokens
        if left or any(each != adds[0] for each in adds):
            return super()._tokenised(texts)
        return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), **adds[0])]

    def _image_tokens(self, row: Row) -> int:
        sizes = [self._size(image_size(image, where_of(row)), image, where_of(row)) for image in row.images]
        counted = [self.images.tokens(*size) for size in sizes]
        known = [tokens for tokens in counted if tokens is not None]
        return sum(known) - len(sizes) if len(known) == len(sizes) else super()._image_tokens(row)

    def _resized(self, image: Image.Image) -> Image.Image:
        return self.images.resized(image)

    def _read(
        self, prompt: str, before: list[int], images: Sequence[Image.Image]
    ) -> tuple[list[int], dict[str, list[int]], dict[str, torch.Tensor]]:
        image = self.image_token_id
        others = [token for token in self.placeholders if token != self.image_token]
        if before.count(image) != len(images) or any(token in prompt for token in others):
            return super()._read(prompt, before, images)  # it raises an error that says what is wrong
        inputs, tokens = self.images.inputs(images) if images else ({}, [])
        repeats = iter(tokens)
        ids = [token for one in before for token in ([one] * next(repeats) if one == image else [one])]
        aligned = {TYPES: [int(token == image) for token in ids]} if self.typed else {}
        return ids, aligned, inputs


def _joined(pieces: Sequence[str], turns: Sequence[dict[str, Any]]) -> str:
    """The texts of the turns, with the template's pieces around them."""
    texts = [part["text"] for turn in turns for part in turn["content"] if part["type"] == "text"]
    return pieces[0] + "".join(text + piece for text, piece in zip(texts, pieces[1:], strict=True))


def _is_known(processor: Any) -> bool:
    """Whether the fast path supports a processor.

    It must repeat one token per image, and its tokenizer must pass texts on unchanged.
    """
    tokenizer = processor.tokenizer
    return (
        isinstance(processor, KNOWN)
        and type(processor).__call__ in [kind.__call__ for kind in KNOWN]
        and isinstance(tokenizer, PreTrainedTokenizerFast)
        and getattr(type(tokenizer), "_encode_plus", None) is getattr(PreTrainedTokenizerFast, "_encode_plus", None)
    )


def _probed(renderer: Renderer) -> list[Rendered]:
    """Render a few test rows.

    With another version of transformers, the fast path may give different results.
    """
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    image = encode_png(Image.fromarray(noise))
    rows = [Row("probe", " What's this?\n\n", images=(image,) * count) for count in (0, 2)]
    return [one for row in rows for one in renderer.render_answers(row, [None, "a: b", " c\n"])]


def same(one: Rendered, other: Rendered) -> bool:
    """Whether two renderings are bitwise the same."""
    first, second = one.image_inputs, other.image_inputs
    texts = all(
        getattr(one, field.name) == getattr(other, field.name)
        for field in fields(Rendered)
        if field.name != "image_inputs"
    )
    return (
        texts
        and first.keys() == second.keys()
        and all(value.dtype == second[key].dtype and torch.equal(value, second[key]) for key, value in first.items())
    )
