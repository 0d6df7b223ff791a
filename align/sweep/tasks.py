"""What is to be run for a row of a grid, stage by stage: each a command of `align`, and whether its results are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    """Where its results are, and which."""
    sets: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    """Those that were asked for by name; none of them: the set's own. `none`: there are answers alone."""
    measured: tuple[str, ...] = ()
    """Tasks of lmms_eval."""
    narrowed: Mapping[str, str] = field(default_factory=dict)
    """{benchmark: which of its rows alone are asked}"""
    served: bool = False
    """Whether a judge is a model without an address, so that a server has to be started for it."""

    @property
    def verb(self) -> str:
        """Of `align`."""
        return VERBS[self.stage]

    @property
    def judged(self) -> bool:
        """Whether there are to be verdicts."""
        return self.judges != (NONE,)

    def lacking(self) -> list[str]:
        """What of its results is absent or withheld, each a few words; empty where all is there. Raises UserError for a damaged folder."""
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
            # Answers are written as they come: those of an evaluation that did not end well may not be all.
            there = (folder / "responses.jsonl").is_file() and (attempt is None or attempt.status == 0)
            return None if there else f"{name}: not answered"
        main = main_summary(folder)
        if main is None:
            return f"{name}: not evaluated"
        absent = [it for it in self.judges if ":" not in it and not (folder / f"summary.{it}.json").is_file()]
        if absent:
            return f"{name}: not judged by {', '.join(absent)}"
        found, wanted = _narrowed(main, name), self.narrowed.get(split_view(name)[0])
        if found != wanted:
            return f"{name}: evaluated on {found or 'all rows'}, and {wanted or 'all rows'} are asked for: remove {folder}, or say so"
        return f"{name}: {WITHHELD}" if main["rate"] is None else None


def _narrowed(summary: dict[str, Any], name: str) -> str | None:
    """Which rows alone an evaluation asked, as its facts say (align/evaluation/selection.py)."""
    begins = f"{split_view(name)[0]}: only "
    return next((fact.removeprefix(begins) for fact in summary.get("facts", []) if fact.startswith(begins)), None)


@dataclass(frozen=True)
class Row:
    """A row of the grid: a run, or a model without training of ours."""

    path: Path
    axes: dict[str, str]
    tasks: tuple[Task, ...]
    """In the order of their stages; one begins when the one before it has ended well."""
    chosen: bool = False
    """Whether it is the run whose settings are chosen once all are validated: a link to it."""

    @property
    def run(self) -> RunFolder:
        """Its folder."""
        return RunFolder(self.path)

    @property
    def name(self) -> str:
        """As messages call it."""
        return f"{self.path.parent.name}/{self.path.name}"
