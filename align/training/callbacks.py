"""What a run writes and shows while it trains."""

from __future__ import annotations

import json
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


class LogFile(TrainerCallback):
    """Every log line of the trainer as a line of log.jsonl."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start from what the checkpoint knows: steps that a kill made void are logged again when they are taken again."""
        if state.is_world_process_zero:
            write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in state.log_history))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Append one line."""
        if state.is_world_process_zero and logs:
            with self.path.open("a", encoding="utf-8") as file:
                append_jsonl(file, {**logs, "step": state.global_step})


class StepFile(TrainerCallback):
    """What each optimizer step trained on, as a line of steps.jsonl: row ids in order, and how many tokens were supervised.

    A run whose loss passes the bound of its method stops there, and its manifest says why.
    """

    def __init__(self, run: RunFolder, trainer: Any):
        self.run, self.path = run, run.steps_file
        self.trainer = trainer
        self.ids = list(trainer.train_dataset["id"])

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the steps that the checkpoint stands on; the others will be taken again."""
        if state.is_world_process_zero:
            there, file = open_jsonl(self.path)
            file.close()
            kept = [line for line in there if line["step"] <= state.global_step]
            if [line["step"] for line in kept] != list(range(1, state.global_step + 1)):
                raise UserError(
                    f"{self.path} has {len(kept)} of the {state.global_step} steps before the checkpoint; what this run trained on "
                    f"is not known any more. Start it anew with resume=false"
                )
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Append one line; every process has its share of the rows."""
        rows, supervised = self.trainer.taken()
        ids = [self.ids[i] for i in rows]
        why = self.trainer.beyond_bound()
        control.should_training_stop |= why is not None
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                append_jsonl(file, {"step": state.global_step, "rows": ids, "supervised_tokens": supervised})
            if why:
                stopped = f"stopped at step {state.global_step}: {why}; the rows of this step: {', '.join(ids)}"
                print(stopped, flush=True)
                self.run.record(stopped=stopped)


class Preemption(TrainerCallback):
    """Stops all processes at the end of a step, with a checkpoint, once one of them was asked to stop."""

    def __init__(self) -> None:
        self.asked = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """From here a signal waits for the end of a step."""
        NOTICE.deferred = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Agree; every process must ask. A step after which training ends anyway is simply the end."""
        here = torch.tensor([NOTICE.signal is not None], dtype=torch.int32, device=PartialState().device)
        self.asked = bool(gather(here).any()) and not control.should_training_stop
        if self.asked:
            control.should_save = control.should_training_stop = True


class Clock(TrainerCallback):
    """The time spent in training, over kills and resumptions, in the manifest: up to the last checkpoint, then to the end."""

    def __init__(self, run: RunFolder):
        self.run = run

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Go on from what the manifest says."""
        self.begun = time.monotonic() - self.run.manifest().get("seconds", 0.0)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint is written."""
        if state.is_world_process_zero:
            self.run.record(seconds=round(time.monotonic() - self.begun, 1))

    on_train_end = on_save


class StepReport(TrainerCallback):
    """Tells a progress display how many steps are done."""

    def __init__(self, report: Callable[[int, int], None]):
        self.report = report

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One more step."""
        self.report(state.global_step, state.max_steps)
