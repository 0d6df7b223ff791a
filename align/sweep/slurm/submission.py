"""Submit rows to SLURM together: files, scripts and sbatch commands.

A submission is a folder: rows.json (the row of each index), <stage>.txt (arguments, one line for
each row), the scripts, jobs.jsonl (job ids). Its arrays share their indices, so element k of the
evaluation waits only for element k of the training.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from align.files import write_json, write_text
from align.settings import SweepConfig
from align.sweep.events import now
from align.sweep.folder import SweepFolder
from align.sweep.slurm.queue import ask, job_name
from align.sweep.slurm.scripts import JUDGE, TABLE, script
from align.sweep.tasks import EVALUATE, STAGES, TRAIN, VALIDATE, Row

PREVIOUS = "previous"
"""Instead of a stage: the training of the previous submission."""
VALIDATED = "validated"
"""Instead of a stage: all validations submitted so far, in this submission and earlier ones."""


@dataclass
class Batch:
    """One sbatch command: a stage of some rows of a submission."""

    stage: str
    indices: list[int] = field(default_factory=list)
    """Indices of the array; empty for a single job."""
    waits_for: list[str] = field(default_factory=list)
    """Dependencies in sbatch syntax; <stage> is replaced by the job's id."""


@dataclass
class Submission:
    """Rows that are submitted together."""

    folder: SweepFolder
    number: int
    rows: list[Row]
    batches: list[Batch] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """Folder of the submission's files."""
        return self.folder.submissions / f"{self.number:04d}"

    def name(self, stage: str) -> str:
        """Name of the job of a stage."""
        return job_name(self.folder.id, self.number, stage)

    def lines(self, stage: str) -> str:
        """Arguments of a stage, a line for each row; empty for a row without the stage."""
        found = [[task.arguments for task in row.tasks if task.stage == stage] for row in self.rows]
        return "".join(f"{shlex.join(of[0]) if of else ''}\n" for of in found)


def texts(submission: Submission, config: SweepConfig) -> dict[str, str]:
    """{file: its text} for the scripts of a submission and the argument files of its arrays."""
    served = any(batch.stage == JUDGE for batch in submission.batches)
    judge = {"JUDGE_ADDRESS": str(submission.path / "judge.address")} if served else {}
    patience = {"JUDGE_PATIENCE": str(config.cluster.judge.patience)} if judge else {}
    variables = {
        VALIDATE: judge | patience,
        EVALUATE: judge | patience,
        JUDGE: judge | {"JUDGE_COMMAND": config.cluster.judge.command or ""},
        TABLE: {"JUDGE_JOB": submission.name(JUDGE)} if judge else {},
    }
    found = {}
    for stage in dict.fromkeys(batch.stage for batch in submission.batches):
        found[f"{stage}.sh"] = script(stage, config.cluster, variables.get(stage, {}))
        if stage in STAGES:
            found[f"{stage}.txt"] = submission.lines(stage)
    return found


def command(submission: Submission, batch: Batch, config: SweepConfig, ids: dict[str, str]) -> list[str]:
    """The sbatch command of a batch; `ids` is {stage: job id} for its dependencies."""
    output = "%x-%A_%a.log" if batch.indices else "%x-%j.log"
    words = [
        "sbatch",
        "--parsable",
        f"--job-name={submission.name(batch.stage)}",
        f"--output={submission.path / output}",
    ]
    if batch.indices:
        limit = f"%{config.at_once}" if config.at_once else ""
        words.append(f"--array={_ranges(batch.indices)}{limit}")
    if named := [with_id for each in batch.waits_for if (with_id := _with_ids(each, ids))]:
        words += [f"--dependency={','.join(named)}", "--kill-on-invalid-dep=yes"]
    what = (
        str(submission.path / f"{batch.stage}.txt") if batch.indices else f"output_dir={submission.folder.output_dir}"
    )
    return [*words, str(submission.path / f"{batch.stage}.sh"), *([] if batch.stage == JUDGE else [what])]


def submit(submission: Submission, config: SweepConfig, known: dict[str, str]) -> Iterator[tuple[Batch, str]]:
    """Write a submission's files, submit its batches, and yield each with its job id.

    `known` passes ids from one submission to the next. The rows are written first, so that queued
    jobs can always be identified. Raises UserError.
    """
    write_json(submission.path / "rows.json", [str(row.path) for row in submission.rows])
    for name, text in texts(submission, config).items():
        write_text(submission.path / name, text)
    ids: dict[str, str] = {}
    for batch in submission.batches:
        job = ask(*command(submission, batch, config, known | ids)).strip().partition(";")[0]
        # Dependents wait for all arrays of one stage.
        ids[batch.stage] = f"{ids[batch.stage]}:{job}" if batch.stage in ids else job
        if batch.stage == VALIDATE:
            known[VALIDATED] = f"{known[VALIDATED]}:{job}" if VALIDATED in known else job
        with (submission.path / "jobs.jsonl").open("a", encoding="utf-8") as file:
            file.write(
                json.dumps({"job": job, "stage": batch.stage, "indices": batch.indices, "submitted": now()}) + "\n"
            )
        yield batch, job
    known[PREVIOUS] = ids.get(TRAIN, known.get(PREVIOUS, ""))


def _with_ids(dependency: str, ids: dict[str, str]) -> str | None:
    """A dependency with the job's id; None if there is no such job."""
    before, bracket, stage = dependency.partition("<")
    if not bracket:
        return dependency
    job = ids.get(stage.rstrip(">"))
    return before + job if job else None


def _ranges(indices: Sequence[int]) -> str:
    """[0, 1, 2, 5] -> 0-2,5"""
    parts = []
    for _, group in groupby(enumerate(indices), lambda pair: pair[1] - pair[0]):
        run = [index for _, index in group]
        parts.append(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}")
    return ",".join(parts)
