"""Callbacks: the files of a run, its training time, its progress, and its stop on a signal."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather
from transformers import TrainerCallback

from align.errors import UserError
from align.files import append_jsonl, open_jsonl, write_text
from align.interruption import NOTICE
from align.run_folder import RunFolder

LOG = logging.getLogger(__name__)


class LogFile(TrainerCallback):
    """Writes every log line of the trainer to log.jsonl."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the lines up to the checkpoint; the steps after it are trained and logged again."""
        if state.is_world_process_zero:
            write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in state.log_history))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Append one line."""
        if state.is_world_process_zero and logs:
            with self.path.open("a", encoding="utf-8") as file:
                append_jsonl(file, {**logs, "step": state.global_step})


class StepFile(TrainerCallback):
    """Writes the row ids, in order, and the supervised tokens of each step to steps.jsonl.

    If the loss exceeds the bound of the method, training stops at that step and the manifest says
    why.
    """

    def __init__(self, run: RunFolder, trainer: Any):
        self.run, self.path = run, run.steps_file
        self.trainer = trainer
        self.ids = list(trainer.train_dataset["id"])

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the steps up to the checkpoint; the steps after it are trained again."""
        if state.is_world_process_zero:
            there, file = open_jsonl(self.path)
            file.close()
            kept = [line for line in there if line["step"] <= state.global_step]
            if [line["step"] for line in kept] != list(range(1, state.global_step + 1)):
                raise UserError(
                    f"{self.path} has {len(kept)} of the {state.global_step} steps before the checkpoint; the rows of "
                    "the other steps are unknown. Start the run again with resume=false"
                )
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Append one line. Every process must call this: each has a share of the rows."""
        rows, supervised = self.trainer.taken()
        ids = [self.ids[i] for i in rows]
        why = self.trainer.beyond_bound()
        control.should_training_stop |= why is not None
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                append_jsonl(file, {"step": state.global_step, "rows": ids, "supervised_tokens": supervised})
            if why:
                stopped = f"stopped at step {state.global_step}: {why}; the rows of this step: {', '.join(ids)}"
                LOG.info(stopped)
                self.run.record(stopped=stopped)


class Preemption(TrainerCallback):
    """After a signal, saves a checkpoint and stops all processes at the end of the step."""

    def __init__(self) -> None:
        self.asked = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """From now on a signal takes effect at the end of a step."""
        NOTICE.deferred = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Agree whether to stop; every process must call it.

        After the last step, training ends as usual.
        """
        here = torch.tensor([NOTICE.signal is not None], dtype=torch.int32, device=PartialState().device)
        self.asked = bool(gather(here).any()) and not control.should_training_stop
        if self.asked:
            control.should_save = control.should_training_stop = True


class Clock(TrainerCallback):
    """Records the training time in the manifest, at each checkpoint and at the end.

    Resumed runs add to it.
    """

    def __init__(self, run: RunFolder):
        self.run = run

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start from the seconds in the manifest."""
        self.begun = time.monotonic() - self.run.manifest().get("seconds", 0.0)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Record the seconds: a checkpoint was written, or training ended."""
        if state.is_world_process_zero:
            self.run.record(seconds=round(time.monotonic() - self.begun, 1))

    on_train_end = on_save


class StepReport(TrainerCallback):
    """Reports to a progress display how many steps are done."""

    def __init__(self, report: Callable[[int, int], None]):
        self.report = report

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report one more step."""
        self.report(state.global_step, state.max_steps)
