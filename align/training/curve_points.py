"""Points of a curve: weights saved every N steps, to be evaluated after training."""

from __future__ import annotations

import shutil
from typing import Any

from transformers import TrainerCallback

from align.files import share
from align.run_folder import RunFolder
from align.training.callbacks import Preemption


class CurvePoints(TrainerCallback):
    """Writes <run>/curve/step-<N>/checkpoint/ every `every_steps` steps, but not after the last.

    A point is written before the trainer's checkpoint of the same step, so a run that resumes from
    that checkpoint has all earlier points. This callback must come after the callbacks that end
    training, because it reads their decision. With `every_steps` None, it saves nothing.
    """

    def __init__(self, run: RunFolder, trainer: Any, preemption: Preemption, every_steps: int | None):
        self.run, self.trainer, self.preemption, self.every_steps = run, trainer, preemption, every_steps
        self.draft = run.curve / ".being-saved"

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the points up to the checkpoint; the steps after it are trained again."""
        if state.is_world_process_zero:
            shutil.rmtree(self.draft, ignore_errors=True)  # left by a process that was killed while it saved
            for step, point in self.run.curve_points().items():
                if step > state.global_step:
                    shutil.rmtree(point.path)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write a point. A run that a signal stops resumes later, so this is not its last step."""
        is_last = control.should_training_stop and not self.preemption.asked
        if self.every_steps and state.global_step % self.every_steps == 0 and not is_last:
            self._write(state.global_step)

    def _write(self, step: int) -> None:
        accelerator = self.trainer.accelerator
        self.trainer.save_model(
            str(RunFolder(self.draft).weights)
        )  # every process calls it: each may hold a share of the weights
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            share(self.draft)
            self.draft.rename(self.run.curve / f"step-{step}")
        accelerator.wait_for_everyone()
