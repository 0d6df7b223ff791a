"""Commands as a user types them, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCH = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
# DeepSpeed finds a CPU by its own variable.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}


def train_command(
    *arguments: str, processes: int = 1, script: Path = ROOT / "align" / "train.py", config: Path | None = None
) -> list[str]:
    """`accelerate launch align/train.py ...`; two processes meet over gloo. `config` is a file for the launcher."""
    accelerate = str(Path(sys.executable).with_name("accelerate"))
    several = ["--multi_gpu"] if processes > 1 else []  # also on a CPU: `--cpu` would give a world of one in silence
    launch = ["--config_file", str(config)] if config else [*several, *LAUNCH]
    return [accelerate, "launch", *launch, "--num_processes", str(processes), str(script), *arguments]


def call(command: list[str], folder: Path, timeout: float = 120, **more: str) -> subprocess.CompletedProcess:
    """Run a command in a folder, with `more` in its environment, and keep what it prints."""
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False, env=ENVIRONMENT | more
    )


def align(*arguments: str) -> list[str]:
    """`align ...`"""
    return [sys.executable, "-m", "align.cli", *arguments]
