"""Record the optimizer steps of a training process.

Also imported in the peers' environments, so it needs only torch and transformers.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import torch
from transformers import TrainerCallback

from align.training.memory import peak_memory_mib


class Steps(TrainerCallback):
    """Records when each optimizer step ended, and its loss."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.cpu: list[float] = []
        self.losses: list[float] = []
        self.tflops: list[float] = []
        self.waits: list[float] = []
        self.first_step_done = 0.0
        self.trainable = 0
        self.work: dict[str, float] = {}

    def on_train_begin(self, *_: Any, model: Any = None, **__: Any) -> None:
        """Record the start of training."""
        self.trainable = sum(it.numel() for it in model.parameters() if it.requires_grad)
        self._note()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Record the end of a step."""
        self.first_step_done = self.first_step_done or time.time()
        self._note()

    def _note(self) -> None:
        self.ended.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def on_log(self, *_: Any, logs: dict[str, Any] | None = None, **__: Any) -> None:
        """Record the loss and, if the log has them, the computed FLOP/s and the wait for rows."""
        for key, kept in (("loss", self.losses), ("tflops", self.tflops), ("data_wait", self.waits)):
            kept += [float(logs[key])] if logs and key in logs else []


def noted(steps: Steps) -> dict[str, Any]:
    """The records of `steps`, and the process's peak memory.

    `first_step_done` is a clock time in seconds.
    """
    return {
        "seconds": [round(b - a, 4) for a, b in pairwise(steps.ended)],
        "cpu_seconds": [round(b - a, 4) for a, b in pairwise(steps.cpu)],
        "cpu_seconds_to_first_step": round(steps.cpu[1], 2),
        "first_step_done": steps.first_step_done,
        "trainable": steps.trainable,
        "losses": steps.losses,
        "work": steps.work,
        "tflops": steps.tflops,
        "data_wait": steps.waits,
        "peak_memory_mib": peak_memory_mib(),
        "threads": torch.get_num_threads(),
    }
