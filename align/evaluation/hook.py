"""The evaluation hook: a process of its own, so that the same code serves our checkpoints and other people's, and no judge keeps
the GPUs of a training job waiting.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LAUNCHER_VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "GROUP_RANK",
)
"""What `accelerate launch` tells its processes; a child that saw them would wait for a process group that is closed."""


def evaluate_in_child(run: Path) -> int:
    """`align eval run=<folder>` as a child process; its exit status. The checkpoint is safe whatever becomes of it."""
    command = [sys.executable, "-m", "align.cli", "eval", f"run={run}"]
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in LAUNCHER_VARIABLES and not key.startswith(("TORCHELASTIC_", "ACCELERATE_", "FSDP_"))
    }
    status = subprocess.run(command, env=environment, check=False).returncode
    if status:
        print(
            f"evaluation ended with status {status}; the checkpoint is safe. To go on with it: align eval run={run}",
            flush=True,
        )
    return status
