"""Rendering: one row -> token ids, the supervised span, and image tensors. Laying rows out in a batch is collation's.

This is the plain path, through the processor itself. `align.fast` gives the same for known families in less time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from align.data.images import MAX_PIXELS, encode_png, image_size, load_image
from align.errors import BadRow, UserError
from align.families import Family
from align.rows import ImageRef, Row
from align.settings import ModelSettings


@dataclass
class Rendered:
    """One row as a model reads it."""

    id: str
    prompt_ids: list[int]
    """Everything up to where the model begins to answer, image tokens included."""
    answer_ids: list[int]
    """The answer and its end of turn, nothing else: the supervised span. Empty for a row that is to be answered."""
    aligned: dict[str, list[int]]
    """What else the processor gives per prompt token (Qwen2-VL's mm_token_type_ids)."""
    image_inputs: dict[str, torch.Tensor]
    """What the processor gives per image (pixel_values, image_grid_thw), concatenated over a batch along the first axis."""
    images: tuple[ImageRef, ...] = ()
    """Which images these are, in order."""

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.prompt_ids) + len(self.answer_ids)

    @property
    def key(self) -> str:
        """32 hex digits of all that a model reads: prompt, answer and pixels."""
        return digest_of(self.image_inputs, json.dumps([self.prompt_ids, self.answer_ids]).encode()).hex()

    def inputs_of_images(self) -> list[dict[str, torch.Tensor]]:
        """`image_inputs` of each of the images alone."""
        whole, count = self.image_inputs, len(self.images)
        patches = whole["image_grid_thw"].prod(-1).tolist() if "image_grid_thw" in whole else []
        parts = {
            key: value.split(patches if len(patches) and len(value) == sum(patches) else 1)
            for key, value in whole.items()
        }
        if any(len(of_key) != count for of_key in parts.values()):
            sizes = {key: tuple(value.shape) for key, value in whole.items()}
            raise UserError(f"row {self.id}: {sizes} cannot be told apart by its {count} images; use layout=padded")
        return [{key: of_key[i] for key, of_key in parts.items()} for i in range(count)]


def digest_of(image_inputs: dict[str, torch.Tensor], before: bytes = b"") -> bytes:
    """16 bytes of a hash of image tensors, and of what is told before them."""
    digest = hashlib.sha256(before)
    for name, values in sorted(image_inputs.items()):
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()[:16]


FILLER = (28, 28)
"""Width and height of an image that only stands for one."""


class Renderer:
    """Rows -> Rendered, with one processor, the conventions of its family, and what the settings say of prompts and images."""

    def __init__(self, processor: Any, family: Family, settings: ModelSettings | None = None):
        self.processor = processor
        self.family = family
        self.settings = settings or ModelSettings()
        self.image_token = family.image_token or getattr(processor, "image_token", None)
        self.image_token_id = processor.tokenizer.convert_tokens_to_ids(self.image_token)
        self.pad_token_id = processor.tokenizer.pad_token_id
        self.unknown_token_id = processor.tokenizer.unk_token_id
        # Asked once: the tokenizer lists its whole vocabulary to answer.
        self.end_of_turn = family.end_of_turn(processor)
        written = (self.image_token, getattr(processor, "image_token", None), getattr(processor, "video_token", None))
        self.placeholders = [token for token in dict.fromkeys(written) if token]
        self.special_tokens = sorted({*processor.tokenizer.all_special_tokens, *self.placeholders, self.end_of_turn})

    @cached_property
    def identity(self) -> str:
        """The same for renderers that make the same of every row: tokenizer, template, image processor and settings."""
        tokenizer, images = self.processor.tokenizer, self.processor.image_processor
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        words: Any = f"{tokenizer.name_or_path} {len(tokenizer)}"
        if hasattr(backend, "to_str"):  # a call may leave its padding in it
            words = {
                key: value
                for key, value in json.loads(backend.to_str()).items()
                if key not in ("padding", "truncation")
            }
        said = [words, str(tokenizer.special_tokens_map), self.processor.chat_template]
        # How many tokens an image becomes is said by plain values of the processor (LLaVA's patch_size).
        said += [{key: value for key, value in vars(self.processor).items() if isinstance(value, str | int | float)}]
        said += [type(images).__name__, images.to_dict(), self.image_token, self.end_of_turn]
        said += [self.settings.system_prompt, self.settings.image_aspect_ratio]
        return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()[:16]

    def prompt_text(self, row: Row) -> str:
        """The prompt as the chat template writes it, up to where the answer begins."""
        return self._written(row)

    def prompt_length(self, row: Row) -> int:
        """Tokens of the prompt, image tokens included, from the sizes of its images: none is decoded. Raises UserError.

        Exact for the known families. Not counted is an image whose processor does not say how many tokens it becomes.
        """
        return len(self._tokenised([self.prompt_text(row)])[0]) + self._image_tokens(row)

    def measure(self, row: Row, answers: Sequence[str]) -> tuple[int, list[list[int]]]:
        """(Tokens of the prompt as `prompt_length` counts them, ids of each answer). Raises BadRow as `render_answers` does."""
        where = where_of(row)
        self._refuse_special_tokens(row.prompt, answers, where)
        before, ids = self._ids_of(row, self.prompt_text(row), answers, where)
        return len(before) + self._image_tokens(row), ids

    def check_shape(self, image: ImageRef, where: str) -> None:
        """Raises BadRow for an image whose shape the processor cannot resize, UserError for one whose header cannot be read."""
        self._size(image_size(image, where), image, where)

    def _image_tokens(self, row: Row) -> int:
        """Image tokens of a row, less the one that the template writes for each image. Raises UserError."""
        sizes = [self._size(image_size(image, where_of(row)), image, where_of(row)) for image in row.images]
        if not sizes or not hasattr(self.processor, "_get_num_multimodal_tokens"):
            return 0
        counted = self.processor._get_num_multimodal_tokens(image_sizes=[(height, width) for width, height in sizes])
        return sum(counted.num_image_tokens) + len(sizes) * (self._around_image - 1)

    @cached_property
    def _around_image(self) -> int:
        """Tokens that the processor writes around an image: none but for Gemma 3."""
        row = Row("filler", "", images=(encode_png(Image.new("RGB", FILLER, "grey")),))
        counted = self.processor._get_num_multimodal_tokens(image_sizes=[FILLER[::-1]])
        written = len(self.render(row).prompt_ids) - len(self._tokenised([self.prompt_text(row)])[0])
        return written + 1 - sum(counted.num_image_tokens)

    def render(self, row: Row, answer: str | None = None) -> Rendered:
        """Token ids and image tensors of a row; with an answer, its supervised span too.

        Raises UserError where a text holds the image token, where the answer is empty, or where an image cannot be read.
        """
        return self.render_answers(row, [answer])[0]

    def render_answers(self, row: Row, answers: Sequence[str | None]) -> list[Rendered]:
        """The same for several answers to one row, whose prompt and images are rendered once. Raises UserError."""
        where = where_of(row)
        given = [answer for answer in answers if answer is not None]
        self._refuse_special_tokens(row.prompt, given, where)
        prompt = self.prompt_text(row)
        images = [self._loaded(image, where) for image in row.images]
        before, found = self._ids_of(row, prompt, given, where)
        prompt_ids, aligned, image_inputs = self._read(prompt, before, images)
        of_answers = iter(found)
        ids = [[] if answer is None else next(of_answers) for answer in answers]
        return [Rendered(row.id, prompt_ids, answer_ids, aligned, image_inputs, row.images) for answer_ids in ids]

    def filler(self) -> Rendered:
        """The image tokens of one small grey image and nothing else: see `align.batches.collators.pad`."""
        image = self.render(Row("filler", "", images=(encode_png(Image.new("RGB", FILLER, "grey")),)))
        kept = [i for i, token in enumerate(image.prompt_ids) if token == self.image_token_id]
        aligned = {key: [values[i] for i in kept] for key, values in image.aligned.items()}
        tokens = [self.image_token_id] * len(kept)
        return replace(image, prompt_ids=tokens, aligned=aligned)

    def _refuse_special_tokens(self, prompt: str, answers: Sequence[str], where: str) -> None:
        """A placeholder in a text stands for an image that is not there; a special token in an answer would end the turn in its middle."""
        texts = [("prompt", prompt, self.placeholders), *(("answer", text, self.special_tokens) for text in answers)]
        for name, text, refused in texts:
            found = next((token for token in refused if token in text), None)
            if found is not None:
                raise BadRow(
                    f"{where}: its {name} contains the model's own token {found!r}; remove it from the text",
                    "special_token",
                )

    def _ids_of(self, row: Row, prompt: str, answers: Sequence[str], where: str) -> tuple[list[int], list[list[int]]]:
        """(Ids of a prompt, each image still one token; ids of each answer behind it). Raises BadRow."""
        texts = [self._behind(row, prompt, answer, where) for answer in answers]
        # Tokenised in its context: a sentencepiece tokenizer writes the first word differently when it stands alone. The image
        # placeholder is not expanded here, which changes nothing behind it.
        before, *whole = self._tokenised([prompt, *(prompt + text for text in texts)])
        # Where prompt and answer merge into one token at the seam, the answer is tokenised alone, as the prompt is in generation.
        ids = [
            ids[len(before) :]
            if ids[: len(before)] == before
            else list(self.processor.tokenizer(text, add_special_tokens=False).input_ids)
            for ids, text in zip(whole, texts, strict=True)
        ]
        return before, ids

    def _behind(self, row: Row, prompt: str, answer: str, where: str) -> str:
        """What stands behind a prompt: what the template writes before an answer (a space for LLaVA), it, and its end. Raises BadRow."""
        if not answer.strip():
            raise BadRow(f"{where}: its answer is empty; nothing would be supervised", "empty_answer")
        whole = self._written(row, answer)
        if not whole.startswith(prompt) or answer not in whole[len(prompt) :]:
            raise BadRow(
                f"{where}: the chat template does not continue its generation prompt with the answer as it stands "
                f"(it may trim or rewrite it), so the supervised span is unknown; change the answer or the template",
                "template",
            )
        return whole[len(prompt) :].partition(answer)[0] + answer + self.end_of_turn

    def _read(
        self, prompt: str, before: list[int], images: Sequence[Image.Image]
    ) -> tuple[list[int], dict[str, list[int]], dict[str, torch.Tensor]]:
        """(Prompt ids with image tokens, `aligned`, `image_inputs`) of a prompt whose own ids are `before`."""
        shown = {"images": [list(images)]} if images else {}
        inputs = dict(self.processor(text=[prompt], **shown, return_tensors="pt", **self._adds_tokens(prompt)))
        ids = inputs.pop("input_ids")
        del inputs["attention_mask"]
        aligned = {key: value[0].tolist() for key, value in inputs.items() if value.shape == ids.shape}
        return ids[0].tolist(), aligned, {key: value for key, value in inputs.items() if key not in aligned}

    def _tokenised(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        return [list(self.processor.tokenizer(text, **self._adds_tokens(text)).input_ids) for text in texts]

    def _adds_tokens(self, text: str) -> dict[str, bool]:
        """A template that writes the beginning of a sequence itself (Gemma's, Llama's) must not get a second one."""
        beginning = self.processor.tokenizer.bos_token
        return {"add_special_tokens": False} if beginning and text.startswith(beginning) else {}

    def _turns(self, row: Row, answer: str | None = None) -> list[dict[str, Any]]:
        images: list[dict[str, str]] = [{"type": "image"} for _ in row.images]
        turns = [("user", images, row.prompt)]
        if self.settings.system_prompt is not None:  # the template may have one of its own
            turns.insert(0, ("system", [], self.settings.system_prompt))
        if answer is not None:
            turns.append(("assistant", [], answer))
        return [{"role": role, "content": [*shown, {"type": "text", "text": text}]} for role, shown, text in turns]

    def _size(self, size: tuple[int, int], image: ImageRef, where: str) -> tuple[int, int]:
        """The (width, height) at which the processor gets an image. Raises BadRow for a shape that it cannot resize."""
        width, height = shown = size if self.settings.image_aspect_ratio != "pad" else (max(size),) * 2
        processor = self.processor.image_processor
        why = None
        if width * height > MAX_PIXELS:
            why = f"padded to a square, it would have {width * height:,} pixels; at most {MAX_PIXELS:,}"
        elif hasattr(processor, "get_number_of_image_patches"):
            try:
                processor.get_number_of_image_patches(height, width, {})
            except ValueError as error:  # Qwen2-VL's bound of the aspect ratio
                why = str(error)
        elif shortest := dict(getattr(processor, "size", None) or {}).get("shortest_edge"):
            # LLaVA's scales the shorter side up and crops afterwards: of a line it would make a huge image.
            pixels = shortest**2 * max(shown) // min(shown)
            why = f"resized, it would have {pixels:,} pixels; at most {MAX_PIXELS:,}" if pixels > MAX_PIXELS else None
        if why:
            raise BadRow(
                f"{where}: image {image.name or '(bytes in the row)'} is {size[0]} x {size[1]}: {why}; crop it, or remove the row",
                "image_shape",
            )
        return width, height

    def _loaded(self, image: ImageRef, where: str) -> Image.Image:
        """An image as the processor gets it. Raises UserError."""
        decoded = load_image(image, where)
        self._size(decoded.size, image, where)
        return self._image(decoded)

    def _image(self, image: Image.Image) -> Image.Image:
        """As the processor gets it: as it is, or on a square of the processor's mean colour, as LLaVA-1.5 was trained."""
        if self.settings.image_aspect_ratio != "pad":
            return image
        colour = tuple(int(255 * mean) for mean in self.processor.image_processor.image_mean)
        square = Image.new("RGB", (max(image.size),) * 2, colour)
        square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
        return square

    def _written(self, row: Row, answer: str | None = None) -> str:
        """What the chat template writes of a row, up to where an answer begins; with an answer, all of it."""
        turns = self._turns(row, answer)
        return self.processor.apply_chat_template(turns, add_generation_prompt=answer is None, tokenize=False)


def where_of(row: Row) -> str:
    """What errors call a row."""
    return f"row {row.id}" + (f" of {row.source}" if row.source else "")
