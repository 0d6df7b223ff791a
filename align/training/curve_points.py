"""Points of a curve: the weights alone, kept every so many steps of a training, to be evaluated after it."""

from __future__ import annotations

import shutil
from typing import Any

from transformers import TrainerCallback

from align.files import share
from align.run_folder import RunFolder
from align.training.callbacks import Preemption


class CurvePoints(TrainerCallback):
    """Writes <run>/curve/step-<N>/checkpoint/ after each step that is a multiple of `every_steps`, but for the last step.

    It comes before the trainer's own checkpoint of the same step, so that a run that goes on from there lacks none. It must come
    after the callbacks that end a training, which it asks. None for `every_steps` keeps nothing.
    """

    def __init__(self, run: RunFolder, trainer: Any, preemption: Preemption, every_steps: int | None):
        self.run, self.trainer, self.preemption, self.every_steps = run, trainer, preemption, every_steps
        self.draft = run.curve / ".being-saved"

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the points that the checkpoint stands on; the steps of the others will be taken again."""
        if state.is_world_process_zero:
            shutil.rmtree(self.draft, ignore_errors=True)  # of a process that was killed at it
            for step, point in self.run.curve_points().items():
                if step > state.global_step:
                    shutil.rmtree(point.path)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write a point; a run that was only asked to stop goes on after this step."""
        is_last = control.should_training_stop and not self.preemption.asked
        if self.every_steps and state.global_step % self.every_steps == 0 and not is_last:
            self._write(state.global_step)

    def _write(self, step: int) -> None:
        accelerator = self.trainer.accelerator
        self.trainer.save_model(
            str(RunFolder(self.draft).weights)
        )  # every process: each may hold a share of the weights
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            share(self.draft)
            self.draft.rename(self.run.curve / f"step-{step}")
        accelerator.wait_for_everyone()
