"""Tasks of a row of a grid, one for each stage: a command, and whether its results exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from align.evaluation.judges.build import NONE
from align.evaluation.lmms.measure import SUMMARY, folder_of
from align.report.run_results import main_summary
from align.rows import split_view
from align.run_folder import RunFolder
from align.sweep.events import last_attempt

TRAIN, VALIDATE, EVALUATE = STAGES = ("train", "validate", "evaluate")
VERBS = {TRAIN: "train", VALIDATE: "eval", EVALUATE: "eval"}
WITHHELD = "withheld, too many invalid verdicts"


@dataclass(frozen=True)
class Task:
    """One command for one folder."""

    stage: str
    path: Path
    arguments: tuple[str, ...]
    evaluation: Path | None = None
    """Folder of its results."""
    sets: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    """Judges given by name; empty for the benchmark's own judges.

    `none`: responses only, no verdicts.
    """
    measured: tuple[str, ...] = ()
    """Tasks of lmms_eval."""
    narrowed: Mapping[str, str] = field(default_factory=dict)
    """{benchmark: its selection of rows, in words}"""
    served: bool = False
    """Whether a judge is a model without an endpoint, which needs a judge job."""

    @property
    def verb(self) -> str:
        """The verb of `align`."""
        return VERBS[self.stage]

    @property
    def judged(self) -> bool:
        """Whether verdicts are wanted."""
        return self.judges != (NONE,)

    def lacking(self) -> list[str]:
        """Words on each missing or withheld result; empty if all results exist.

        Raises UserError for a damaged folder.
        """
        if self.evaluation is None:
            return [] if RunFolder(self.path).finished() else ["not trained"]
        lines = [line for name in self.sets if (line := self._lacking(name))]
        absent = [task for task in self.measured if not (folder_of(self.evaluation, task) / SUMMARY).is_file()]
        return lines + [f"lmms_eval {task}: not measured" for task in absent]

    def _lacking(self, name: str) -> str | None:
        assert self.evaluation is not None
        folder = self.evaluation / name
        if not self.judged:
            attempt = last_attempt(self.path, self.stage)
            # Responses are written one by one: after a failed evaluation some may be missing.
            there = (folder / "responses.jsonl").is_file() and (attempt is None or attempt.status == 0)
            return None if there else f"{name}: no responses yet"
        main = main_summary(folder)
        if main is None:
            return f"{name}: not evaluated"
        absent = [it for it in self.judges if ":" not in it and not (folder / f"summary.{it}.json").is_file()]
        if absent:
            return f"{name}: not judged by {', '.join(absent)}"
        if "narrowed" not in main:
            return f"{name}: evaluated before version 0.2.0, so its selection of rows is unknown: remove {folder}"
        found, wanted = main["narrowed"], self.narrowed.get(split_view(name)[0])
        if found != wanted:
            return (
                f"{name}: evaluated on {found or 'all rows'}, but the grid needs {wanted or 'all rows'}: "
                f"remove {folder}, or change the grid"
            )
        return f"{name}: {WITHHELD}" if main["rate"] is None else None


@dataclass(frozen=True)
class Row:
    """A row of the grid: a run, or a model without training."""

    path: Path
    axes: dict[str, str]
    tasks: tuple[Task, ...]
    """In the order of their stages; each begins after the previous one has succeeded."""
    chosen: bool = False
    """Whether it is a link to the run whose settings are chosen after validation."""

    @property
    def run(self) -> RunFolder:
        """The run folder."""
        return RunFolder(self.path)

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"{self.path.parent.name}/{self.path.name}"
