"""Rendering by the processor: one row -> token ids, the supervised span and image tensors (faster: align/fast/)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from align.batches.earlier_responses import continuation, earlier_responses, learned_tokens
from align.batches.rendered import Rendered
from align.data.images import MAX_PIXELS, encode_png, image_size, load_image
from align.errors import BadRow
from align.families import Family
from align.rows import ImageRef, Row, parts_of
from align.settings import ModelSettings

FILLER = (28, 28)
"""Width and height of a filler image."""


class Renderer:
    """Rows -> Rendered, with one processor, its family's conventions, and the settings for prompts and images."""

    def __init__(self, processor: Any, family: Family, settings: ModelSettings | None = None):
        self.processor = processor
        self.family = family
        self.settings = settings or ModelSettings()
        self.image_token = family.image_token or getattr(processor, "image_token", None)
        self.image_token_id = processor.tokenizer.convert_tokens_to_ids(self.image_token)
        self.pad_token_id = processor.tokenizer.pad_token_id
        self.unknown_token_id = processor.tokenizer.unk_token_id
        self._counted: dict[tuple[tuple[int, int], ...], int] = {}
        # Computed once, because the tokenizer lists its whole vocabulary for it.
        self.end_of_turn = family.end_of_turn(processor)
        written = (self.image_token, getattr(processor, "image_token", None), getattr(processor, "video_token", None))
        self.placeholders = [token for token in dict.fromkeys(written) if token]
        self.special_tokens = sorted({*processor.tokenizer.all_special_tokens, *self.placeholders, self.end_of_turn})

    @cached_property
    def identity(self) -> str:
        """A hash of tokenizer, template, image processor and settings; equal for renderers with equal results."""
        tokenizer, images = self.processor.tokenizer, self.processor.image_processor
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        words: Any = f"{tokenizer.name_or_path} {len(tokenizer)}"
        if hasattr(backend, "to_str"):  # earlier calls may have left padding settings in it
            words = {
                key: value
                for key, value in json.loads(backend.to_str()).items()
                if key not in ("padding", "truncation")
            }
        said = [words, str(tokenizer.special_tokens_map), self.processor.chat_template]
        # Plain values of the processor determine the number of image tokens (LLaVA's patch_size).
        said += [{key: value for key, value in vars(self.processor).items() if isinstance(value, str | int | float)}]
        said += [type(images).__name__, images.to_dict(), self.image_token, self.end_of_turn]
        said += [self.settings.system_prompt, self.settings.image_aspect_ratio]
        said += [dict(self.settings.template)] if self.settings.template else []
        return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()[:16]

    def prompt_text(self, row: Row) -> str:
        """The prompt as the chat template writes it, up to the start of the response."""
        return self.written(row)

    def prompt_length(self, row: Row) -> int:
        """Number of prompt tokens, image tokens included, from the sizes of the images without decoding. Raises UserError.

        Exact for the known families. If a processor does not report its number of image tokens, an image counts as one token.
        """
        return len(self._tokenised([self.prompt_text(row)])[0]) + self._image_tokens(row)

    def measure(self, row: Row, answers: Sequence[str], history: bool = False) -> tuple[int, list[list[int]]]:
        """(`prompt_length` of the row, ids of each response). Raises BadRow like `render_answers`."""
        where = where_of(row)
        self._refuse_special_tokens(row, answers, where)
        prompt = self.prompt_text(row)
        if history:
            earlier_responses(self, row, prompt)
        before, ids = self._ids_of(row, prompt, answers, where)
        return len(before) + self._image_tokens(row), ids

    def check_shape(self, image: ImageRef, where: str) -> None:
        """Raise BadRow for an image shape that the processor cannot resize, UserError for an unreadable header."""
        self._size(image_size(image, where), image, where)

    def _image_tokens(self, row: Row) -> int:
        """Image tokens of a row, minus the one token per image that the template writes. Raises UserError."""
        sizes = [self._size(image_size(image, where_of(row)), image, where_of(row)) for image in row.images]
        if not sizes:
            return 0
        if not self.family.counts_image_tokens:
            return self._counted_tokens(tuple(sizes))
        if not hasattr(self.processor, "_get_num_multimodal_tokens"):
            return 0
        counted = self.processor._get_num_multimodal_tokens(image_sizes=[(height, width) for width, height in sizes])
        return sum(counted.num_image_tokens) + len(sizes) * (self._around_image - 1)

    def _counted_tokens(self, sizes: tuple[tuple[int, int], ...]) -> int:
        """`_image_tokens` of images of these sizes, counted once on blank images."""
        if sizes not in self._counted:
            text = self.prompt_text(Row("blank", "", (ImageRef(bytes=b""),) * len(sizes)))
            before = self._tokenised([text])[0]
            ids, _, _ = self._read(text, before, [Image.new("RGB", size, "grey") for size in sizes])
            self._counted[sizes] = len(ids) - len(before)
        return self._counted[sizes]

    @cached_property
    def _around_image(self) -> int:
        """Number of tokens that the processor writes around an image and does not count (Gemma 3)."""
        row = Row("filler", "", images=(encode_png(Image.new("RGB", FILLER, "grey")),))
        counted = self.processor._get_num_multimodal_tokens(image_sizes=[FILLER[::-1]])
        written = len(self.render(row).prompt_ids) - len(self._tokenised([self.prompt_text(row)])[0])
        return written + 1 - sum(counted.num_image_tokens)

    def render(self, row: Row, answer: str | None = None) -> Rendered:
        """Token ids and image tensors of a row; with a response, its supervised span too.

        Raises UserError if a text contains the image token, if the response is empty, or if an image cannot be read.
        """
        return self.render_answers(row, [answer])[0]

    def render_answers(self, row: Row, answers: Sequence[str | None], history: bool = False) -> list[Rendered]:
        """`render` for several responses to one row, whose prompt and images are rendered once. Raises UserError.

        `history`: find the earlier responses of a conversation that are trained on.
        """
        where = where_of(row)
        given = [answer for answer in answers if answer is not None]
        self._refuse_special_tokens(row, given, where)
        prompt = self.prompt_text(row)
        images = [self._loaded(image, where) for image in row.images]
        before, found = self._ids_of(row, prompt, given, where)
        prompt_ids, aligned, image_inputs = self._read(prompt, before, images)
        learned = learned_tokens(self, row, prompt, before, prompt_ids) if history else ()
        of_answers = iter(found)
        ids = [[] if answer is None else next(of_answers) for answer in answers]
        whole = Rendered(row.id, prompt_ids, [], aligned, image_inputs, row.images, self.family.image_axis, learned)
        return [replace(whole, answer_ids=answer_ids) for answer_ids in ids]

    def unexpanded(self, row: Row) -> tuple[list[int], list[Image.Image]]:
        """(Prompt ids with one placeholder for each image, the images), for a program that expands and encodes images itself.

        Raises UserError like `render`.
        """
        where = where_of(row)
        self._refuse_special_tokens(row, [], where)
        images = [self._resized(self._loaded(image, where)) for image in row.images]
        return self._tokenised([self.prompt_text(row)])[0], images

    def _resized(self, image: Image.Image) -> Image.Image:
        """The image in its final size, if this renderer knows it."""
        return image

    def filler(self) -> Rendered:
        """Only the image tokens of one small grey image; see `align.batches.collators.Collator.filler`."""
        image = self.render(Row("filler", "", images=(encode_png(Image.new("RGB", FILLER, "grey")),)))
        kept = [i for i, token in enumerate(image.prompt_ids) if token == self.image_token_id]
        aligned = {key: [values[i] for i in kept] for key, values in image.aligned.items()}
        tokens = [self.image_token_id] * len(kept)
        return replace(image, prompt_ids=tokens, aligned=aligned)

    def _refuse_special_tokens(self, row: Row, answers: Sequence[str], where: str) -> None:
        """Raise BadRow for special tokens in texts: a placeholder refers to an absent image; others may end a response early."""
        responses = [*(turn.text for turn in row.history if turn.role == "assistant"), *answers]
        asked = [*(turn.text for turn in row.history if turn.role != "assistant"), row.prompt]
        texts = [("prompt", text, self.placeholders) for text in asked]
        texts += [("response", text, self.special_tokens) for text in responses]
        for name, text, refused in texts:
            found = next((token for token in refused if token in text), None)
            if found is not None:
                raise BadRow(
                    f"{where}: the {name} contains the model's special token {found!r}; remove it from the text",
                    "special_token",
                )

    def _ids_of(self, row: Row, prompt: str, answers: Sequence[str], where: str) -> tuple[list[int], list[list[int]]]:
        """(Ids of a prompt with one token per image; ids of each response after it). Raises BadRow."""
        texts = [self.behind(row, prompt, answer, where) for answer in answers]
        # Tokenize a response after its prompt: without context, a sentencepiece tokenizer splits the first word differently. Image
        # placeholders are not expanded here, which does not change the tokens after them.
        before, *whole = self._tokenised([prompt, *(prompt + text for text in texts)])
        # If the end of the prompt and the start of the response merge into one token, tokenize the response alone, as the prompt in
        # generation.
        ids = [
            ids[len(before) :]
            if ids[: len(before)] == before
            else list(self.processor.tokenizer(text, add_special_tokens=False).input_ids)
            for ids, text in zip(whole, texts, strict=True)
        ]
        return before, ids

    def behind(self, row: Row, prompt: str, answer: str, where: str) -> str:
        """The text after a prompt: the template's prefix (a space for LLaVA), the response, and its end. Raises BadRow."""
        if not answer.strip():
            raise BadRow(
                f"{where}: the response is empty, so no token would be supervised; add a response, or remove the row",
                "empty_answer",
            )
        whole = self.written(row, answer)
        begins = continuation(prompt, whole)
        rest = whole[begins:]
        if begins is None or answer not in rest:
            raise BadRow(
                f"{where}: the chat template does not continue its generation prompt with the unchanged response "
                f"(it may trim or rewrite it), so the supervised span is unknown; change the response or the template",
                "template",
            )
        return rest.partition(answer)[0] + answer + self.end_of_turn

    def _read(
        self, prompt: str, before: list[int], images: Sequence[Image.Image]
    ) -> tuple[list[int], dict[str, list[int]], dict[str, torch.Tensor]]:
        """(Prompt ids with image tokens, `aligned`, `image_inputs`) of a prompt with the unexpanded ids `before`."""
        shown = {"images": [list(images)]} if images else {}
        inputs = dict(self.processor(text=[prompt], **shown, return_tensors="pt", **self.adds_tokens(prompt)))
        ids = inputs.pop("input_ids")
        del inputs["attention_mask"]
        per_token = [key for key, value in inputs.items() if value.shape == ids.shape or key in self.family.per_token]
        aligned = {key: inputs[key][0].tolist() for key in per_token}
        return ids[0].tolist(), aligned, {key: value for key, value in inputs.items() if key not in aligned}

    def _tokenised(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        return [list(self.processor.tokenizer(text, **self.adds_tokens(text)).input_ids) for text in texts]

    def adds_tokens(self, text: str) -> dict[str, bool]:
        """Avoid a second beginning-of-sequence token if the template writes it itself (Gemma, Llama)."""
        beginning = self.processor.tokenizer.bos_token
        return {"add_special_tokens": False} if beginning and text.startswith(beginning) else {}

    def _turns(self, row: Row, answer: str | None = None) -> list[dict[str, Any]]:
        """The conversation as chat templates read it. A system turn of the row replaces that of the settings."""
        turns = [{"role": turn.role, "content": parts_of(turn.text, turn.places)} for turn in row.history]
        if self.settings.system_prompt is not None and not any(turn.role == "system" for turn in row.history):
            # otherwise the template may write its own
            turns.insert(0, {"role": "system", "content": parts_of(self.settings.system_prompt, ())})
        before = len(row.images) - sum(len(turn.places) for turn in row.history) - len(row.places)
        turns.append({"role": "user", "content": parts_of(row.prompt, row.places, before)})
        if answer is not None:
            turns.append({"role": "assistant", "content": parts_of(answer, ())})
        return turns

    def _size(self, size: tuple[int, int], image: ImageRef, where: str) -> tuple[int, int]:
        """(width, height) of an image as passed to the processor. Raises BadRow for a shape that it cannot resize."""
        width, height = shown = size if self.settings.image_aspect_ratio != "pad" else (max(size),) * 2
        processor = self.processor.image_processor
        why = None
        if width * height > MAX_PIXELS:
            why = f"padded to a square, it would have {width * height:,} pixels, expected at most {MAX_PIXELS:,}"
        elif hasattr(processor, "get_number_of_image_patches"):
            try:
                processor.get_number_of_image_patches(height, width, {})
            except ValueError as error:  # Qwen2-VL limits the aspect ratio
                why = str(error)
        elif shortest := dict(getattr(processor, "size", None) or {}).get("shortest_edge"):
            # LLaVA's processor scales up the shorter side and crops afterwards, so a very thin image would become huge.
            pixels = shortest**2 * max(shown) // min(shown)
            why = (
                f"resized, it would have {pixels:,} pixels, expected at most {MAX_PIXELS:,}"
                if pixels > MAX_PIXELS
                else None
            )
        if why:
            raise BadRow(
                f"{where}: image {image.name or '(bytes in the row)'} is {size[0]} x {size[1]}: {why}; crop it, or remove the row",
                "image_shape",
            )
        return width, height

    def _loaded(self, image: ImageRef, where: str) -> Image.Image:
        """Load an image as the processor needs it. Raises UserError."""
        decoded = load_image(image, where)
        self._size(decoded.size, image, where)
        if self.settings.image_aspect_ratio != "pad":
            return decoded
        # To a square with the processor's mean colour, as in LLaVA-1.5's training.
        colour = tuple(int(255 * mean) for mean in self.processor.image_processor.image_mean)
        square = Image.new("RGB", (max(decoded.size),) * 2, colour)
        square.paste(decoded, ((square.width - decoded.width) // 2, (square.height - decoded.height) // 2))
        return square

    def written(self, row: Row, answer: str | None = None) -> str:
        """The chat template's text of a row, up to the start of the response; with a response, the whole text."""
        turns = self._turns(row, answer)
        values = dict(self.settings.template)
        return self.processor.apply_chat_template(turns, add_generation_prompt=answer is None, tokenize=False, **values)


def where_of(row: Row) -> str:
    """The name of a row in error messages."""
    return f"row {row.id}" + (f" of {row.source}" if row.source else "")
