"""Jobs of a sweep in SLURM's queue.

Jobs are identified by name, which has sweep, submission and stage; an array's index gives the row.
So no job is lost if a sweep is killed before it stores a job id.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from align.errors import UserError

RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING", "STOPPED", "SIGNALING", "STAGE_OUT")
KINDS = ("train", "validate", "evaluate", "judge", "choose", "table")
NAME = re.compile(r"align-(?P<sweep>[0-9a-f]{8})-(?P<number>\d+)-(?P<stage>[a-z]+)")


@dataclass(frozen=True)
class Queued:
    """One job, or one element of an array."""

    id: str
    """As printed by squeue: 12, or 12_3."""
    number: int
    """Number of the submission."""
    stage: str
    state: str
    reason: str

    @property
    def index(self) -> int | None:
        """Index of an array's element; None for other jobs."""
        _, underscore, index = self.id.partition("_")
        return int(index) if underscore and index.isdigit() else None

    @property
    def array(self) -> str:
        """The id shared by all elements."""
        return self.id.partition("_")[0]

    @property
    def running(self) -> bool:
        """Whether it runs on a node."""
        return self.state in RUNNING


def job_name(sweep: str, number: int, stage: str) -> str:
    """Name of a job of a sweep."""
    return f"align-{sweep}-{number:04d}-{stage}"


def queued(sweep: str, numbers: Sequence[int]) -> list[Queued]:
    """Every queued or running job of a sweep's submissions.

    Raises UserError if SLURM cannot be queried.
    """
    names = [job_name(sweep, number, stage) for number in numbers for stage in KINDS]
    if not names:
        return []
    lines = ask("squeue", "--noheader", "--array", f"--name={','.join(names)}", "--format=%i|%j|%T|%r").splitlines()
    found = []
    for line in lines:
        job, name, state, reason = line.strip().split("|", 3)
        if match := NAME.fullmatch(name):
            found.append(Queued(job, int(match["number"]), match["stage"], state, reason))
    return found


def max_array_size() -> int:
    """Greatest number of elements of an array; without SLURM its default, 1001."""
    if shutil.which("scontrol") is None:
        return 1001
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"))
    return int(found[1]) if found else 1001


def ask(*command: str) -> str:
    """Run a SLURM command -> its output. Raises UserError with its error message."""
    try:
        # The command inherits the sweep's lock, so the next sweep waits for a submission in
        # progress.
        done = subprocess.run(command, capture_output=True, text=True, close_fds=False, env=_environment())
    except OSError as error:
        raise UserError(
            f"{command[0]} cannot be run: {error.strerror}. Use launcher=slurm on a login node of the cluster."
        ) from error
    if done.returncode:
        raise UserError(f"{' '.join(command)}: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.stdout


def _environment() -> dict[str, str]:
    """The environment without variables that filter the user's view of the queue."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
