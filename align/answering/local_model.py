"""A model of this machine that is asked for answers: loaded when there is something to ask, in one process or several."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from align.answering.answer import Answer, Unanswered, check_sampling
from align.answering.generate import generate, hidden_thoughts, load_on, longest_first
from align.answering.thoughts import NOTHING_HIDDEN, marks_of
from align.answering.workers import Workers
from align.devices import has_gpu
from align.errors import UserError
from align.fast.seen_images import SeenImages
from align.models.loading import ModelSource
from align.rows import Row
from align.settings import Generation, ModelSettings


class LocalModel:
    """A model of this machine, in this process or in several, each with a device of its own.

    It is loaded when it is first asked something, and stays until `release`: several sets are answered with one loading.
    """

    place = ""

    def __init__(self, source: ModelSource, generation: Generation):
        """Raises UserError for a model that is not there, and for settings that nothing can be generated with."""
        check_sampling(generation)
        self.marks = marks_of(generation.thought_marks, "generation.thought_marks")
        self._devices = devices(generation.num_processes)
        self.source, self._generation = source, generation
        self.known = source.load_without_weights()
        self._renderer = self.known.renderer
        self.name = f"the model {source.settings.name} (weights {self.known.weights})"
        self.base = self.known.path
        self.identity: dict[str, Any] = {"weights": self.known.weights}
        hidden = hidden_thoughts(self._renderer, generation)
        if hidden != NOTHING_HIDDEN:  # what is stored depends on it
            tokens = self._renderer.processor.tokenizer.convert_ids_to_tokens(sorted(hidden.kept))
            self.identity["thoughts"] = {"opened": hidden.opened, "kept": tokens}
        self._model: Any = None
        self._seen: SeenImages | None = None
        self._workers: Workers | None = None

    def prompt(self, row: Row) -> str:
        """What the model reads of a row, but for its images."""
        return self._renderer.prompt_text(row)

    def usage(self) -> str:
        """What was paid so far: nothing."""
        return ""

    def answers(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        """Answers as they come, not in the order of the rows. Raises UserError, also where a process that shares the rows ends."""
        if not rows:
            return
        if len(self._devices) > 1:
            yield from self._answers_of_workers(rows)
            return
        if self._model is None:
            self._model = load_on(self._devices[0], self.source).model
            self._seen = SeenImages(self._model, self.known.family)
        yield from generate(self._model, self._renderer, rows, self._generation, self._seen)

    def release(self) -> None:
        """Let go of the model, and of what it holds of the devices. It may be asked again, and is loaded anew."""
        if self._workers is not None:
            self._workers.close()
        self._model = self._seen = self._workers = None
        gc.collect()
        torch.cuda.empty_cache()

    def _answers_of_workers(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        if self._workers is None or self._workers.closed:
            self._workers = Workers(self.source, self._generation, self._devices)
        ordered = longest_first(self._renderer, rows, self.known.positions)
        yield from ordered.unusable
        yield from self._workers.answers(ordered.rows)


class BaseModel(LocalModel):
    """A base model as it is, without the adapter that a run may continue: aligned already, that one would refuse what is wanted."""

    def __init__(self, settings: ModelSettings, generation: Generation):
        super().__init__(ModelSource(replace(settings, adapter=None)), generation)
        self.name = f"the base model {settings.name} (weights {self.known.weights})"

    def answers(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        """Answers as they come; when all have come the model is let go. Raises UserError."""
        try:
            yield from super().answers(rows)
        finally:
            # The trainer loads a model of its own: what this one held of the device must be free by then.
            self.release()


def devices(num_processes: int | None) -> list[str]:
    """Where each process that answers computes: on the GPUs in turn, or on the CPU. Raises UserError.

    A single one takes the GPU that the launcher of a run gave to this process.
    """
    if num_processes is not None and num_processes < 1:
        raise UserError(f"generation.num_processes={num_processes}: expected at least 1")
    gpus = torch.cuda.device_count() if has_gpu() else 0
    if not gpus:
        return ["cpu"] * (num_processes or 1)
    if (num_processes or gpus) == 1:
        return [f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % gpus}"]
    return [f"cuda:{i % gpus}" for i in range(num_processes or gpus)]
