"""States of the rows of a grid: done, running, queued, failed (with the reason) or left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from align.errors import UserError
from align.interruption import EXIT_AGAIN
from align.sweep.events import at_work, last_attempt, why_failed
from align.sweep.tasks import WITHHELD, Row, Task

DONE, RUNNING, QUEUED, FAILED, LEFT = STATES = ("done", "running", "queued", "failed", "left")
"""done: all results exist; running: a job works on it; queued: a job waits.

Failed: the last job failed; left: not begun, or interrupted.
"""


@dataclass(frozen=True)
class Job:
    """A queued or running job of one task."""

    id: str
    running: bool
    reason: str = ""
    """SLURM's reason why it waits."""


DAMAGED = "damaged"
Queue = Mapping[tuple[Path, str], Job]
"""{(folder, stage): its job}"""


@dataclass(frozen=True)
class State:
    """State of one row."""

    row: Row
    what: str
    stage: str = ""
    """Its first unfinished stage."""
    why: str = ""


def states_of(rows: Sequence[Row], queue: Queue) -> list[State]:
    """State of every row, from its folder and the queue."""
    return [_state(row, queue) for row in rows]


def counted(states: Sequence[State]) -> str:
    """Number of rows in each state, as text."""
    counts = Counter(state.what for state in states)
    return ", ".join(f"{counts[what]} {what}" for what in STATES if counts[what]) or "nothing"


def lacking(task: Task) -> list[str]:
    """`Task.lacking`; a damaged folder is one line instead of an error."""
    try:
        return task.lacking()
    except (UserError, KeyError, TypeError, AttributeError) as error:
        return [f"{DAMAGED}: {error}"]


def _state(row: Row, queue: Queue) -> State:
    for task in row.tasks:
        job = queue.get((task.path, task.stage))
        if job:
            return State(
                row,
                RUNNING if job.running else QUEUED,
                task.stage,
                f"job {job.id}" + f" ({job.reason})" * bool(job.reason),
            )
        if absent := lacking(task):
            return _not_done(row, task, absent)
    return State(row, DONE)


def _not_done(row: Row, task: Task, absent: list[str]) -> State:
    attempt = last_attempt(task.path, task.stage)
    if attempt and attempt.status is None and at_work(task.path):
        return State(row, RUNNING, task.stage, f"job {attempt.job}")
    if any(WITHHELD in line or line.startswith(DAMAGED) for line in absent):
        return State(row, FAILED, task.stage, "; ".join(absent))
    if attempt is None or attempt.status == 0:  # not begun; or it succeeded, but more results are wanted now
        return State(row, LEFT, task.stage, "; ".join(absent))
    why = why_failed(task.path, task.stage, attempt)
    return State(row, LEFT if attempt.status == EXIT_AGAIN else FAILED, task.stage, why)
