"""What of a sweep is in SLURM's queue. Jobs are known by their names, which say the sweep, the submission and the stage; an array's index
says the row. So nothing is lost where whoever submitted was killed before it could write down an id.
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
    """As squeue says it: 12, or 12_3."""
    number: int
    """Of the submission."""
    stage: str
    state: str
    reason: str

    @property
    def index(self) -> int | None:
        """Of an array's element."""
        _, underscore, index = self.id.partition("_")
        return int(index) if underscore and index.isdigit() else None

    @property
    def array(self) -> str:
        """The id that all elements share."""
        return self.id.partition("_")[0]

    @property
    def running(self) -> bool:
        """Whether it has a machine."""
        return self.state in RUNNING


def job_name(sweep: str, number: int, stage: str) -> str:
    """What a job of a sweep is called."""
    return f"align-{sweep}-{number:04d}-{stage}"


def queued(sweep: str, numbers: Sequence[int]) -> list[Queued]:
    """Every job of a sweep's submissions that waits or runs, whoever submitted it. Raises UserError where SLURM cannot be asked."""
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
    """How many elements an array may have; the last index is one less. Where there is no SLURM to ask, its default."""
    if shutil.which("scontrol") is None:
        return 1001
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"))
    return int(found[1]) if found else 1001


def ask(*command: str) -> str:
    """One of SLURM's commands -> what it prints. Raises UserError with what it says."""
    try:
        # It keeps the sweep's lock: a submission that is on its way when its sweep is killed is waited for by the next one.
        done = subprocess.run(command, capture_output=True, text=True, close_fds=False, env=_environment())
    except OSError as error:
        raise UserError(
            f"{command[0]} cannot be run: {error.strerror}; launcher=slurm is given on a login node"
        ) from error
    if done.returncode:
        raise UserError(f"{' '.join(command)}: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Without what a user's own view of the queue leaves out."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
