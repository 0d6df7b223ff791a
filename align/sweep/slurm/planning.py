"""Plan submissions to SLURM: tasks that are neither done nor queued, as dependent job arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from align.files import read_json
from align.settings import SweepConfig
from align.sweep.events import ended
from align.sweep.folder import Plan, SweepFolder
from align.sweep.slurm.queue import Queued, max_array_size, queued
from align.sweep.slurm.scripts import CHOOSE, JUDGE, TABLE
from align.sweep.slurm.submission import PREVIOUS, VALIDATED, Batch, Submission
from align.sweep.state import Job, Queue, lacking
from align.sweep.tasks import EVALUATE, STAGES, TRAIN, VALIDATE

Lacks = Mapping[Path, set[str]]
"""{folder of a row: its unfinished stages}"""


def queue_of(folder: SweepFolder) -> tuple[Queue, list[Queued]]:
    """-> ({(folder, stage): job}, jobs) of a sweep.

    Raises UserError if SLURM or a submission cannot be read.
    """
    jobs = queued(folder.id, folder.numbers())
    rows = {number: _rows_of(folder, number) for number in {job.number for job in jobs if job.stage in STAGES}}
    found: dict[tuple[Path, str], Job] = {}
    for job in jobs:
        if job.stage in STAGES and job.index is not None and job.index < len(rows[job.number]):
            path = rows[job.number][job.index]
            if not (job.state == "COMPLETING" and ended(path, job.stage)):
                found[path, job.stage] = Job(job.id, job.running, job.reason.strip("()"))
    return found, jobs


def orphans(queue: Queue, lacks: Lacks) -> dict[tuple[Path, str], Job]:
    """Jobs that wait for a training that is neither done nor queued.

    SLURM would let them wait until the whole array has ended.
    """
    return {
        (path, stage): job
        for (path, stage), job in queue.items()
        if stage != TRAIN and not job.running and TRAIN in lacks.get(path, ()) and (path, TRAIN) not in queue
    }


def lacks_of(plan: Plan) -> Lacks:
    """Unfinished stages of every row."""
    return {row.path: {task.stage for task in row.tasks if lacking(task)} for row in plan.rows}


def planned(
    folder: SweepFolder, plan: Plan, config: SweepConfig, queue: Queue, jobs: Sequence[Queued], lacks: Lacks
) -> list[Submission]:
    """Submissions to make: later stages of rows with queued stages, then rows without jobs.

    Writes nothing. Raises UserError if SLURM or a submission cannot be read.
    """
    new = list(_new(folder, plan, queue, lacks))
    found = [*_cut_short(folder, plan, queue, jobs, lacks), *new]
    for submission in found:
        _order(submission, jobs)
    if config.at_once:  # limits are per array, so arrays run one after another
        for submission in new[1:]:
            for batch in submission.batches:
                batch.waits_for += [f"afterany:<{PREVIOUS}>"] * (batch.stage == TRAIN)
    return found


def _cut_short(
    folder: SweepFolder, plan: Plan, queue: Queue, jobs: Sequence[Queued], lacks: Lacks
) -> Iterator[Submission]:
    """Missing parts of queued submissions, which were killed before everything was submitted."""
    known = {row.path: row for row in plan.rows}
    for number in sorted({job.number for job in jobs if job.stage in STAGES}):
        paths = _rows_of(folder, number)
        if not all(path in known for path in paths):
            continue  # a grid that is no longer in the plan
        submission = Submission(folder, number, [known[path] for path in paths])
        training = _arrays(jobs, number, TRAIN)
        # Only rows that it trains itself: another submission may have taken over a failed row.
        trains = {job.index for job in jobs if job.number == number and job.stage == TRAIN}
        for stage in (VALIDATE, EVALUATE):
            indices = [
                index
                for index, row in enumerate(submission.rows)
                if index in trains and stage in lacks[row.path] and (row.path, stage) not in queue
            ]
            if indices:
                submission.batches.append(Batch(stage, indices, [f"aftercorr:{':'.join(training)}"]))
        if submission.batches or not _arrays(jobs, number, TABLE):
            yield submission


def _arrays(jobs: Sequence[Queued], number: int, *stages: str) -> list[str]:
    """Ids of a submission's arrays of some stages."""
    return list(dict.fromkeys(job.array for job in jobs if job.number == number and job.stage in stages))


def _new(folder: SweepFolder, plan: Plan, queue: Queue, lacks: Lacks) -> Iterator[Submission]:
    busy = {path for path, _ in queue}
    rows = [row for row in plan.current if row.path not in busy and lacks[row.path]]
    # Rows to train come first, so that each array is one range.
    rows.sort(key=lambda row: min(map(STAGES.index, lacks[row.path])))
    size = max_array_size() if rows else 1
    last = max(folder.numbers(), default=0)
    for number, start in enumerate(range(0, len(rows), size), start=last + 1):
        submission = Submission(folder, number, rows[start : start + size])
        for stage in STAGES:
            _add(submission, stage, lacks)
        yield submission


def _add(submission: Submission, stage: str, lacks: Lacks) -> None:
    """Add a stage for rows that lack it.

    Each waits for its own training, if that is submitted too.
    """
    kinds: dict[str, list[int]] = {f"aftercorr:<{TRAIN}>": [], "": [], f"afterok:<{CHOOSE}>": []}
    after_training, at_once, after_choice = kinds.values()
    for index, row in enumerate(submission.rows):
        if stage in lacks[row.path]:
            waits = stage != TRAIN and TRAIN in lacks[row.path]
            (after_choice if row.chosen else after_training if waits else at_once).append(index)
    for dependency, indices in kinds.items():
        if indices:
            submission.batches.append(Batch(stage, indices, [dependency] if dependency else []))


def _order(submission: Submission, jobs: Sequence[Queued]) -> None:
    """Add a judge server after training, the choice after validation, tables at the end."""
    arrays = {batch.stage for batch in submission.batches}
    judged = [batch for batch in submission.batches if batch.stage in (VALIDATE, EVALUATE)]
    ordered = [batch for batch in submission.batches if batch.stage == TRAIN]
    tasks = [task for batch in judged for index in batch.indices for task in submission.rows[index].tasks]
    if any(task.served for task in tasks):
        training = [f"afterany:{job}" for job in _arrays(jobs, submission.number, TRAIN)]
        ordered.append(Batch(JUDGE, [], [*([f"afterany:<{TRAIN}>"] if TRAIN in arrays else []), *training]))
        for batch in judged:
            batch.waits_for.append(f"after:<{JUDGE}>")
    ordered += [batch for batch in judged if batch.stage == VALIDATE]
    if any(f"<{CHOOSE}>" in each for batch in judged for each in batch.waits_for):
        # Rows are ordered by stage, so no later submission validates.
        validations = dict.fromkeys(job.array for job in jobs if job.stage == VALIDATE)
        ordered.append(Batch(CHOOSE, [], [f"afterany:<{VALIDATED}>", *(f"afterany:{job}" for job in validations)]))
    ordered += [batch for batch in judged if batch.stage == EVALUATE]
    there = [f"afterany:{job}" for job in _arrays(jobs, submission.number, *STAGES)]
    ordered.append(Batch(TABLE, [], [*(f"afterany:<{batch.stage}>" for batch in _last_of_each(ordered)), *there]))
    submission.batches = ordered


def _last_of_each(batches: Sequence[Batch]) -> list[Batch]:
    return list({batch.stage: batch for batch in batches if batch.stage in STAGES}.values())


def _rows_of(folder: SweepFolder, number: int) -> list[Path]:
    return [Path(row) for row in read_json(folder.submissions / f"{number:04d}" / "rows.json")]
