"""A model on this machine that writes responses: loaded at the first request, in one or several processes."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from align.answering.answer import Answer, Unanswered, check_sampling
from align.answering.generate import Drawing, generate, hidden_thoughts, load_on, longest_first, thought_budget
from align.answering.thinking import switched, thinking_of
from align.answering.thoughts import NOTHING_HIDDEN, marks_of
from align.answering.workers import Workers
from align.devices import has_gpu
from align.errors import UserError
from align.fast.seen_images import SeenImages
from align.models.loading import ModelSource
from align.rows import Row
from align.settings import Generation


class OnThisMachine:
    """What models on this machine have in common, whichever program generates their responses."""

    place = ""

    def __init__(self, source: ModelSource, generation: Generation):
        """Raises UserError for an absent model, and for invalid generation settings."""
        check_sampling(generation)
        self.marks = marks_of(generation.thought_marks, "generation.thought_marks")
        known = source.load_without_weights()
        settings = switched(known.settings, known.processor.chat_template, thinking_of(generation))
        self.source, self._generation = replace(source, settings=settings), generation
        self.known = replace(known, settings=settings)
        self._renderer = self.known.renderer
        thought_budget(self._renderer, generation)  # an impossible budget is an error before the weights are loaded
        self.name = f"the model {source.settings.name} (weights {self.known.weights})"
        self.base = self.known.path
        self.identity: dict[str, Any] = {"weights": self.known.weights}
        self._hidden = hidden_thoughts(self._renderer, generation)
        if self._hidden != NOTHING_HIDDEN:  # stored responses depend on it
            tokens = self._renderer.processor.tokenizer.convert_ids_to_tokens(sorted(self._hidden.kept))
            self.identity["thoughts"] = {"opened": self._hidden.opened, "kept": tokens}

    def prompt(self, row: Row) -> str:
        """The model's prompt for a row, without images."""
        return self._renderer.prompt_text(row)

    def usage(self) -> str:
        """Return an empty text: local models have no cost."""
        return ""


class LocalModel(OnThisMachine):
    """A model that transformers loads, in this process or in several processes with one device each.

    It is loaded at the first request and stays loaded until `release`, so several benchmarks need one load.
    """

    agreement = None

    def __init__(self, source: ModelSource, generation: Generation):
        """Raises UserError for an absent model, and for invalid generation settings."""
        super().__init__(source, generation)
        self._devices = devices(generation.num_processes)
        self._model: Any = None
        self._seen: SeenImages | None = None
        self._workers: Workers | None = None
        self._hook: Drawing | None = None

    def decode_with(self, hook: Drawing) -> None:
        """Let a function give processors of the logits (of a defence), before the first request."""
        self._hook = hook

    def answers(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        """One result per row, in the order of arrival. Raises UserError, also if one of several processes ends."""
        if not rows:
            return
        if len(self._devices) > 1:
            yield from self._answers_of_workers(rows)
            return
        if self._model is None:
            self._model = load_on(self._devices[0], self.source).model
            self._seen = SeenImages(self._model, self.known.family)
        yield from generate(self._model, self._renderer, rows, self._generation, self._seen, self._hook)

    def release(self) -> None:
        """Free the model and its device memory. Another request loads it again."""
        if self._workers is not None:
            self._workers.close()
        self._model = self._seen = self._workers = None
        gc.collect()
        torch.cuda.empty_cache()

    def _answers_of_workers(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        if self._workers is None or self._workers.closed:
            self._workers = Workers(self.source, self._generation, self._devices, self._hook)
        ordered = longest_first(self._renderer, rows, self.known.positions)
        yield from ordered.unusable
        yield from self._workers.answers(ordered.rows)


def devices(num_processes: int | None) -> list[str]:
    """The device of each generating process: the GPUs in turn, or the CPU. Raises UserError.

    A single process uses the GPU that a run's launcher assigned to it.
    """
    if num_processes is not None and num_processes < 1:
        raise UserError(f"generation.num_processes={num_processes}: expected at least 1")
    gpus = torch.cuda.device_count() if has_gpu() else 0
    if not gpus:
        return ["cpu"] * (num_processes or 1)
    if (num_processes or gpus) == 1:
        return [f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % gpus}"]
    return [f"cuda:{i % gpus}" for i in range(num_processes or gpus)]
