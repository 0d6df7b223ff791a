"""The folder of a sweep, <output_dir>/sweep/: plan.json (its rows), lock, SLURM submissions."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.files import read_json, write_json
from align.sweep.tasks import Row, Task

LOG = logging.getLogger(__name__)

SCHEMA = 1


@dataclass(frozen=True)
class Plan:
    """A sweep as last given."""

    rows: list[Row]
    """Rows of the grid, then rows only of earlier grids, whose jobs may be queued."""
    number: int
    """Number of rows of the grid."""
    tune: list[str]
    command: list[str]
    """The command as typed."""

    @property
    def current(self) -> list[Row]:
        """Rows of the grid."""
        return self.rows[: self.number]


@dataclass(frozen=True)
class SweepFolder:
    """The folder of a sweep."""

    output_dir: Path

    @property
    def path(self) -> Path:
        """The sweep's own files, next to the folders of its models."""
        return self.output_dir / "sweep"

    @property
    def plan_file(self) -> Path:
        """File of the plan."""
        return self.path / "plan.json"

    @property
    def submissions(self) -> Path:
        """Folder of SLURM submissions, with a folder for each."""
        return self.path / "submissions"

    @property
    def id(self) -> str:
        """Part of the names of jobs, to find them again: depends only on the resolved folder."""
        return hashlib.sha256(str(self.output_dir.resolve()).encode()).hexdigest()[:8]

    def read(self) -> Plan:
        """Read the plan. Raises UserError if there is none, or if it is damaged."""
        if not self.plan_file.is_file():
            raise UserError(
                f"output_dir={self.output_dir}: found no sweep. Give recipe= and the other axes to begin one."
            )
        values = read_json(self.plan_file)
        try:
            if values["schema"] != SCHEMA:
                raise UserError(f"{self.plan_file}: schema {values['schema']} of another version; expected {SCHEMA}")
            return Plan(
                [_row(record) for record in values["rows"]], values["number"], values["tune"], values["command"]
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"{self.plan_file}: damaged: {error!r}. Give the sweep's command again.") from error

    def write(self, rows: Sequence[Row], tune: Sequence[str], command: Sequence[str]) -> Plan:
        """Write a plan: the grid's rows, then rows of earlier grids that are not in it."""
        try:
            earlier = self.read().rows if self.plan_file.is_file() else []
        except UserError as error:  # run folders hold the same information
            LOG.warning(f"{error}; the plan is written again")
            earlier = []
        taken = {row.path for row in rows}
        kept = [*rows, *(row for row in earlier if row.path not in taken)]
        values = {
            "number": len(rows),
            "command": list(command),
            "tune": list(tune),
            "rows": [_record(row) for row in kept],
        }
        write_json(self.plan_file, {"schema": SCHEMA, **values})
        return Plan(kept, len(rows), list(tune), list(command))

    def numbers(self) -> list[int]:
        """Numbers of the submissions."""
        return sorted(int(path.name) for path in self.submissions.glob("*") if path.name.isdigit())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock: one sweep at a time. Raises UserError if another one is running.

        Child processes keep the lock. So if this process is killed while sbatch runs, the next
        sweep still finds one running.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"{self.path}: another `align sweep` is running here. Wait for it; status=true shows its progress."
                ) from error
            os.set_inheritable(file.fileno(), True)
            yield


def _record(row: Row) -> dict[str, Any]:
    tasks = [
        {
            "stage": task.stage,
            "path": str(task.path),
            "arguments": list(task.arguments),
            "evaluation": str(task.evaluation) if task.evaluation else None,
            "sets": list(task.sets),
            "judges": list(task.judges),
            "narrowed": task.narrowed,
            "served": task.served,
            "measured": list(task.measured),
        }
        for task in row.tasks
    ]
    return {"path": str(row.path), "axes": row.axes, "chosen": row.chosen, "tasks": tasks}


def _row(record: dict[str, Any]) -> Row:
    tasks = [
        Task(
            task["stage"],
            Path(task["path"]),
            tuple(task["arguments"]),
            Path(task["evaluation"]) if task["evaluation"] else None,
            tuple(task["sets"]),
            tuple(task["judges"]),
            tuple(task["measured"]),
            task["narrowed"],
            task["served"],
        )
        for task in record["tasks"]
    ]
    return Row(Path(record["path"]), dict(record["axes"]), tuple(tasks), record["chosen"])
