"""What a run folder says of the jobs that worked on it: jobs.jsonl (when they began and ended) and the logs of its stages.

`slurm/train.sh` and `slurm/evaluate.sh` write these, and so does the local launcher.
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
"""Held in a run's folder by the process that works on it, so that one which outlived a killed sweep is not joined by another."""
COMES_BACK = (EXIT_AGAIN, 128 + signal.SIGUSR1, 128 + signal.SIGTERM)
"""Statuses with which `slurm/train.sh` and `slurm/evaluate.sh` put their job back into the queue."""
TAIL = 64 * 1024
"""Bytes of a log's end that are looked through for what went wrong."""
ERROR = re.compile(
    r"^(?:\[[^\]]*\]:? ?)?((?:error: |[\w.]*(?:Error|Exception|Interrupt|Killed)\b(?::|$)).*)$", re.MULTILINE
)
"""An error of ours, or the last line of a traceback; a launcher may put the rank in front."""
BEGINS = re.compile(r"^=== job .*, on .*$", re.MULTILINE)
"""What a job says first."""
MOST = 300
"""Characters of it that are shown."""


@dataclass(frozen=True)
class Attempt:
    """The last job that worked on a stage of a folder."""

    job: str
    status: int | None
    """How it ended; None where it did not say so: it runs, or was killed."""


def log_of(folder: Path, stage: str) -> Path:
    """Where what a stage prints goes."""
    return folder / f"{stage}.log"


def last_attempt(folder: Path, stage: str) -> Attempt | None:
    """The last job of a stage; None where there was none, or the file says nothing that can be read."""
    file = folder / "jobs.jsonl"
    if not file.is_file():
        return None
    try:
        events = [event for event in read_jsonl(file, growing=True) if event.get("stage") == stage]
    except UserError:  # two nodes wrote at once, say; what is done is known from the results
        return None
    return Attempt(str(events[-1].get("job")), events[-1].get("status")) if events else None


def ended(folder: Path, stage: str) -> bool:
    """Whether the last job of a stage said that it ended, and does not come back."""
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
    """What the log says of a job that did not do its work, else how it ended."""
    if attempt.status is None:
        told = f" (sacct -j {attempt.job} tells)" if attempt.job.replace("_", "").isdigit() else ""
        return f"job {attempt.job} was ended without a word: a node that failed, memory, or scancel{told}; see {log_of(folder, stage)}"
    if attempt.status == EXIT_AGAIN:
        return "interrupted; it goes on where it stopped"
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
    # What an earlier job printed says nothing of the last one.
    found = ERROR.findall(BEGINS.split(text)[-1])
    ours = [line for line in found if line.startswith("error: ")]
    return (ours or found)[-1].strip()[:MOST] if found else None


def now() -> str:
    """As jobs.jsonl and the logs say it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
