"""Jobs that worked on a run folder: jobs.jsonl (begin and end) and the logs of its stages.

`slurm/train.sh`, `slurm/evaluate.sh` and the local launcher write these.
"""

from __future__ import annotations

import fcntl
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from align.errors import UserError
from align.files import read_jsonl
from align.interruption import EXIT_AGAIN

LOCK = ".lock"
"""Lock in a run's folder, held by the process that works on it.

So a process that survived a killed sweep is not joined by another.
"""
COMES_BACK = (EXIT_AGAIN, 128 + signal.SIGUSR1, 128 + signal.SIGTERM)
"""Statuses after which `slurm/train.sh` and `slurm/evaluate.sh` requeue their job."""
TAIL = 64 * 1024
"""Bytes at the end of a log that are searched for an error."""
ERROR = re.compile(
    r"^(?:\[[^\]]*\]:? ?)?((?:error: |[\w.]*(?:Error|Exception|Interrupt|Killed)\b(?::|$)).*)$", re.MULTILINE
)
"""An error of align, or the last line of a traceback; a launcher may print the rank before it."""
BEGINS = re.compile(r"^=== job .*, on .*$", re.MULTILINE)
"""The first line of a job's log."""
MOST = 300
"""Characters of an error that are shown."""


@dataclass(frozen=True)
class Attempt:
    """The last job that worked on a stage of a folder."""

    job: str
    status: int | None
    """Exit status; None if it was not recorded: the job runs, or was killed."""


def log_of(folder: Path, stage: str) -> Path:
    """Log file of a stage."""
    return folder / f"{stage}.log"


def last_attempt(folder: Path, stage: str) -> Attempt | None:
    """The last job of a stage; None if there is none, or if the file cannot be read."""
    file = folder / "jobs.jsonl"
    if not file.is_file():
        return None
    try:
        events = [event for event in read_jsonl(file, growing=True) if event.get("stage") == stage]
    except UserError:  # for example, two nodes wrote at once; results show what is done
        return None
    return Attempt(str(events[-1].get("job")), events[-1].get("status")) if events else None


def ended(folder: Path, stage: str) -> bool:
    """Whether the last job of a stage has ended and is not requeued."""
    attempt = last_attempt(folder, stage)
    return attempt is not None and attempt.status is not None and attempt.status not in COMES_BACK


def at_work(folder: Path) -> bool:
    """Whether a process of this machine works on a folder (align/sweep/local.py)."""
    try:
        with (folder / LOCK).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def why_failed(folder: Path, stage: str, attempt: Attempt) -> str:
    """The error in a failed job's log, else its exit status."""
    if attempt.status is None:
        told = f" (try sacct -j {attempt.job})" if attempt.job.replace("_", "").isdigit() else ""
        return f"job {attempt.job} ended without a status: node failure, out of memory, or scancel{told}; see {log_of(folder, stage)}"
    if attempt.status == EXIT_AGAIN:
        return "interrupted; it will resume where it stopped"
    said = _last_error(log_of(folder, stage))
    ended = f"status {attempt.status}" + (" (killed: out of memory?)" if attempt.status == 137 else "")
    return f"{said or ended}; see {log_of(folder, stage)}"


def _last_error(log: Path) -> str | None:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return None
    # Skip the output of earlier jobs.
    found = ERROR.findall(BEGINS.split(text)[-1])
    ours = [line for line in found if line.startswith("error: ")]
    return (ours or found)[-1].strip()[:MOST] if found else None


def now() -> str:
    """The time in the format of jobs.jsonl and the logs."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
