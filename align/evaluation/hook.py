"""The evaluation hook: a process of its own, so that the same code serves our checkpoints and other people's, and no judge keeps
the GPUs of a training job waiting.
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
"""What `accelerate launch` tells its processes; a child that saw them would wait for a process group that is closed."""


PATIENCE = 10.0
"""Seconds that the child has to end when it is told to."""
CTRL_C = 130
"""What a shell says of a command that was ended by it."""


def evaluate_in_child(run: RunFolder) -> int:
    """`align eval run=<folder>` as a child process; its exit status, or 75 where this one was asked to stop: the child is ended first.

    The run is finished and its checkpoint whole whatever becomes of this; one command, which is printed, goes on with it.
    """
    run.evaluation_interrupted.unlink(missing_ok=True)
    NOTICE.deferred = True  # looked at below
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
        complain(f"{why}; the run is trained and its checkpoint whole. To go on: {command}", prefix="")
    return status


def child_environment() -> dict[str, str]:
    """The environment for a child that is no part of the process group of this one."""
    return {
        key: value
        for key, value in os.environ.items()
        if key not in LAUNCHER_VARIABLES and not key.startswith(("TORCHELASTIC_", "ACCELERATE_", "FSDP_"))
    }


def _ended(child: subprocess.Popen) -> tuple[int, str]:
    """(Exit status, how it came to that) of the child, which has ended then: by itself, or because this process is to end."""
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
    if -status in SIGNALS:  # whoever signals a whole job may reach the child first
        return EXIT_AGAIN, f"{name}: evaluation stopped"
    return 128 - status, f"evaluation was ended by {name}"


def _end(child: subprocess.Popen) -> None:
    """Answers and verdicts are on disk as they came: the child may end anywhere."""
    NOTICE.ignore()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C, while this ends
    child.terminate()
    try:
        child.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
