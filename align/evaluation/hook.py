"""The evaluation after training, in its own process.

So the same code evaluates this package's checkpoints and others, and no judge blocks the GPUs of a
training job.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys

from align.complaint import complain
from align.files import write_text
from align.interruption import EXIT_AGAIN, NOTICE, SIGNALS
from align.run_folder import RunFolder

LAUNCHER_VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "GROUP_RANK",
)
"""Variables of `accelerate launch`; with them, a child would wait for a closed process group."""


PATIENCE = 10.0
"""Seconds that the child has to end after SIGTERM."""
CTRL_C = 130
"""Exit status that shells report after Ctrl-C."""


def evaluate_in_child(run: RunFolder) -> int:
    """Run `align eval run=<folder>` as a child process -> its exit status.

    Returns 75 if this process received a signal to stop; it ends the child first. The run and its
    checkpoint are complete in any case. If the evaluation does not succeed, the command that
    resumes it is printed.
    """
    run.evaluation_interrupted.unlink(missing_ok=True)
    NOTICE.deferred = True  # checked below
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "align.cli", "eval", f"run={run.path}"], env=child_environment()
        )
        status, why = _ended(child)
    except OSError as error:
        status, why = 1, f"evaluation could not be started: {error}"
    if status == EXIT_AGAIN:
        write_text(run.evaluation_interrupted, why + "\n")
    if status:
        command = shlex.join(["align", "eval", f"run={run.path}"])
        complain(
            f"{why}. Training is finished and the checkpoint is complete. To resume the evaluation: {command}",
            prefix="",
        )
    return status


def child_environment() -> dict[str, str]:
    """Environment for a child outside this process group."""
    return {
        key: value
        for key, value in os.environ.items()
        if key not in LAUNCHER_VARIABLES and not key.startswith(("TORCHELASTIC_", "ACCELERATE_", "FSDP_"))
    }


def _ended(child: subprocess.Popen) -> tuple[int, str]:
    """Wait until the child ends, or end it after a signal -> (exit status, reason)."""
    try:
        while NOTICE.signal is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return _by_itself(child.wait(timeout=0.5))
        _end(child)
        return EXIT_AGAIN, f"{NOTICE.signal}: evaluation stopped"
    except KeyboardInterrupt:
        _end(child)
        return CTRL_C, "evaluation stopped"


def _by_itself(status: int) -> tuple[int, str]:
    if status >= 0:
        return status, f"evaluation ended with status {status}"
    name = signal.Signals(-status).name
    if -status in SIGNALS:  # a signal to a whole job may reach the child first
        return EXIT_AGAIN, f"{name}: evaluation stopped"
    return 128 - status, f"evaluation was ended by {name}"


def _end(child: subprocess.Popen) -> None:
    """End the child; its responses and verdicts are already on disk."""
    NOTICE.ignore()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C, while this ends
    child.terminate()
    try:
        child.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
