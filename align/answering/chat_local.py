"""A chat model that transformers loads on this machine, text-only or with images: greedy, batched, left-padded."""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from align.answering.conversation import Failure, Reply, Request, Turn
from align.answering.thoughts import AUTOMATIC, Hidden, Marks
from align.config.paths import is_hub_id
from align.data.images import load_image
from align.devices import has_gpu
from align.errors import UserError
from align.models.weights import fingerprint_of

DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_local(path: str, dtype: str, batch_size: int, section: str = "judge") -> None:
    """Raise UserError for an absent folder and invalid settings of a section, without loading anything."""
    if not Path(path).is_dir() and not is_hub_id(path):
        raise UserError(f"{section}.path={path}: this folder does not exist; correct the path, or give a Hub id")
    if dtype not in DTYPES:
        raise UserError(f"{section}.dtype={dtype}: expected one of {', '.join(DTYPES)}")
    if batch_size < 1:
        raise UserError(f"{section}.batch_size={batch_size}: expected at least 1")


def identity_of(path: str) -> dict[str, str]:
    """Fingerprint of a folder's weights and template, which may change under the same path; empty for a Hub id."""
    if not Path(path).is_dir():
        return {}
    small = sorted(file for pattern in ("*.json", "*.jinja") for file in Path(path).glob(pattern))
    said = hashlib.sha256(b"\0".join(file.name.encode() + file.read_bytes() for file in small)).hexdigest()
    return {"weights": fingerprint_of([path], said)}


class LocalChat:
    """A model with its own chat template. Of its generation_config, only the end of turn is used."""

    def __init__(self, path: str, dtype: str, batch_size: int, marks: Marks = AUTOMATIC, section: str = "judge"):
        """Load it from a folder or Hub id; `marks` are the marks of its thoughts, `section` is named in errors.

        Raises UserError if it cannot be loaded, is incomplete, or has no chat template.
        """
        check_local(path, dtype, batch_size, section)
        self._batch_size, self._marks = batch_size, marks
        try:
            self._sees = AutoConfig.from_pretrained(path).model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
            self._processor = (AutoProcessor if self._sees else AutoTokenizer).from_pretrained(path)
            kind = AutoModelForImageTextToText if self._sees else AutoModelForCausalLM
            model, found = kind.from_pretrained(path, dtype=dtype, use_safetensors=True, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            raise UserError(f"{section}.path={path}: cannot be loaded: {error}") from error
        if lacking := sorted(found["missing_keys"]):  # transformers would initialise them randomly
            shown = ", ".join(lacking[:3])
            raise UserError(
                f"{section}.path={path}: {len(lacking)} of its weights are absent: {shown}; download the model again"
            )
        if self._processor.chat_template is None:
            raise UserError(
                f"{section}.path={path}: the model has no chat template; serve it with a template, and give "
                f"{section}.base_url= instead"
            )
        self._model: Any = model.to("cuda") if has_gpu() else model
        self._model.eval()
        self._tokenizer = self._processor.tokenizer if self._sees else self._processor
        self._tokenizer.padding_side = "left"
        self._tokenizer.pad_token = self._tokenizer.pad_token or self._tokenizer.eos_token
        added = self._tokenizer.added_tokens_decoder.values()
        self._special = sorted((str(t) for t in added if t.special and len(str(t)) > 1), key=len, reverse=True)
        self._ends = self._declared_ends()
        # transformers takes unset options from the model's own generation_config, e.g. a repetition penalty.
        self._model.generation_config = GenerationConfig()
        self._longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    def replies(self, requests: Iterable[Request]) -> Iterator[Reply | Failure]:
        """One reply or failure per request; the longest requests are first."""
        # All rows of a batch have the same number of images, because a processor cannot assign
        # images to rows otherwise.
        ordered = sorted(requests, key=lambda r: (_images(r), -sum(len(turn.text) for turn in r.turns)))
        start = 0
        while start < len(ordered):
            same = [r for r in ordered[start : start + self._batch_size] if _images(r) == _images(ordered[start])]
            start += len(same)
            yield from self._batch(same)

    def usage(self) -> str:
        """Return an empty text: local models have no cost."""
        return ""

    def release(self) -> None:
        """Free its memory."""
        self._model = None
        gc.collect()
        torch.cuda.empty_cache()

    def _batch(self, requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        shown: list[tuple[Request, list[Any]]] = []
        for request in requests:
            try:
                images = [load_image(image, f"row {request.id}") for turn in request.turns for image in turn.images]
                shown.append((request, images))
            except UserError as error:
                yield Failure(request.id, "missing_image", str(error))
        if not shown:
            return
        begun = time.monotonic()
        inputs = self._inputs(shown)
        lengths = [sum(mask) for mask in inputs["attention_mask"].tolist()]
        too_long = {r.id: n for (r, _), n in zip(shown, lengths, strict=True) if not self._fits(n + r.max_new_tokens)}
        if too_long:  # positions beyond the context give meaningless output
            for request_id, length in too_long.items():
                detail = (
                    f"{length} tokens and the room for a reply exceed the model's context of {self._longest} tokens"
                )
                yield Failure(request_id, "transport", detail)
            yield from self._batch([request for request, _ in shown if request.id not in too_long])
            return
        config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            max_new_tokens=max(request.max_new_tokens for request, _ in shown),
            eos_token_id=self._ends,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        with torch.no_grad():
            generated = self._model.generate(**inputs, generation_config=config)
        seconds = (time.monotonic() - begun) / len(shown)
        hidden = Hidden.of(self._tokenizer, self._prompt(shown[0][0]), self._marks)
        answered = generated[:, inputs["input_ids"].shape[1] :].tolist()
        for (request, _), tokens, length in zip(shown, answered, lengths, strict=True):
            end = next((i for i, token in enumerate(tokens) if token in self._ends), None)
            text = hidden.text(self._tokenizer, tokens[:end])
            made = len(tokens) if end is None else end
            yield Reply(request.id, text, "length" if end is None else "stop", seconds, length, made)

    def _fits(self, tokens: int) -> bool:
        return self._longest is None or tokens <= self._longest

    def _inputs(self, shown: Sequence[tuple[Request, list[Any]]]) -> dict[str, Any]:
        texts = [self._prompt(request) for request, _ in shown]
        images = {"images": [images for _, images in shown]} if shown[0][1] else {}
        bos = self._tokenizer.bos_token
        # Avoid a second beginning-of-sequence token if the template writes it itself.
        adds = {"add_special_tokens": False} if bos and texts[0].startswith(bos) else {}
        inputs = self._processor(text=texts, **images, padding=True, return_tensors="pt", **adds)
        return {key: value.to(self._model.device) for key, value in inputs.items()}

    def _prompt(self, request: Request) -> str:
        turns = [self._turn(turn) for turn in request.turns]
        return str(self._processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))

    def _turn(self, turn: Turn) -> dict[str, Any]:
        parts = [
            part | {"text": self._plain(part["text"])} if part["type"] == "text" else part for part in turn.parts()
        ]
        if not self._sees:
            return {"role": turn.role, "content": "".join(part["text"] for part in parts if part["type"] == "text")}
        return {"role": turn.role, "content": parts}

    def _plain(self, text: str) -> str:
        """A judged text, in which a special token is plain text."""
        for token in self._special:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _declared_ends(self) -> list[int]:
        declared = self._model.generation_config.eos_token_id
        ids = [*(declared if isinstance(declared, list) else [declared]), self._tokenizer.eos_token_id]
        return sorted({token for token in ids if token is not None})


def _images(request: Request) -> int:
    return sum(len(turn.images) for turn in request.turns)
