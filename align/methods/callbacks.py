"""What a run writes and shows while it trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from align.files import append_jsonl, write_text


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


class StepReport(TrainerCallback):
    """Tells a progress display how many steps are done."""

    def __init__(self, report: Callable[[int, int], None]):
        self.report = report

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One more step."""
        self.report(state.global_step, state.max_steps)
