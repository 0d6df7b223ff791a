"""How a row of the grid stands: what is done, what runs, what failed and why."""

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
"""All is there; a job works on it; a job waits for it; the last job did not do its work; nobody has begun, or it was interrupted."""


@dataclass(frozen=True)
class Job:
    """A job of the queue that is to do one task."""

    id: str
    running: bool
    reason: str = ""
    """Why it waits."""


DAMAGED = "damaged"
Queue = Mapping[tuple[Path, str], Job]
"""{(folder, stage): its job}"""


@dataclass(frozen=True)
class State:
    """How one row stands."""

    row: Row
    what: str
    stage: str = ""
    """The one that it stands at."""
    why: str = ""


def states_of(rows: Sequence[Row], queue: Queue) -> list[State]:
    """How every row stands, by its folder and the queue."""
    return [_state(row, queue) for row in rows]


def counted(states: Sequence[State]) -> str:
    """How many rows stand how."""
    counts = Counter(state.what for state in states)
    return ", ".join(f"{counts[what]} {what}" for what in STATES if counts[what]) or "nothing"


def lacking(task: Task) -> list[str]:
    """`Task.lacking`, where a damaged folder lacks everything."""
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
    if attempt is None or attempt.status == 0:  # nobody was asked; or it ended well, and more is asked for now
        return State(row, LEFT, task.stage, "; ".join(absent))
    why = why_failed(task.path, task.stage, attempt)
    return State(row, LEFT if attempt.status == EXIT_AGAIN else FAILED, task.stage, why)
