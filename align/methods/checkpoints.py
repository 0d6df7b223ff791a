"""Write checkpoints atomically: a checkpoint is complete or absent.

A run may be killed while it saves, and several processes write to the same checkpoint.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from align.checkpoint_files import write_list
from align.files import share


class WholeCheckpoints:
    """Mixin, placed before a transformers trainer: saves checkpoints atomically.

    All processes write a checkpoint to a temporary folder. The main process renames that folder,
    and only then deletes older checkpoints.
    """

    args: Any
    accelerator: Any
    model: Any
    state: Any
    is_fsdp_enabled: bool
    is_deepspeed_enabled: bool
    _draft: Path | None = None
    """The temporary folder of the checkpoint that is being written."""

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._draft or super()._get_output_dir(trial))  # type: ignore[misc]

    def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
        """Load a full model's weights with `from_pretrained`, which translates the saved names.

        transformers' trainer compares the names without this mapping. It would silently continue
        from the base model's weights.
        """
        model = model or self.model
        if hasattr(model, "peft_config") or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(checkpoint, model)  # type: ignore[misc]
            return
        # float32 holds every value exactly, whatever dtype the parameters have in memory.
        saved = type(model).from_pretrained(checkpoint, dtype=torch.float32)
        model.load_state_dict(saved.state_dict())

    def save_state(self, folder: Path) -> None:
        """Save more in a checkpoint; every process calls it. A method that needs nothing more does nothing."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        checkpoints = Path(self.args.output_dir)
        self._draft = draft = checkpoints / ".being-saved"
        if self.accelerator.is_main_process:
            shutil.rmtree(draft, ignore_errors=True)  # left by a process that was killed while it saved
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            self.save_state(draft / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        finally:
            self._draft = None
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            for checkpoint in draft.iterdir():
                share(checkpoint)
                write_list(checkpoint)
                shutil.rmtree(checkpoints / checkpoint.name, ignore_errors=True)
                checkpoint.rename(checkpoints / checkpoint.name)
            draft.rmdir()
            rotate_checkpoints(str(checkpoints), self.args.save_total_limit)
        self.accelerator.wait_for_everyone()
