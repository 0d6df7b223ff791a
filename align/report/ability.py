"""The paper's ability benchmarks in lmms_eval: task, metric, and scale to the paper's unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.report.lmms_results import metrics_of


@dataclass(frozen=True)
class Ability:
    """One ability metric."""

    task: str
    metrics: tuple[str, ...]
    """Names of the metric; versions of lmms_eval differ."""
    scale: float
    """Factor from lmms_eval's unit to the paper's."""
    heading: str
    percent: bool = True
    """Whether the paper's unit is percent."""

    @property
    def names(self) -> set[tuple[str, str]]:
        """(task, metric) for each name of the metric."""
        return {(self.task, metric) for metric in self.metrics}

    def of(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """The metric of a row, in lmms_eval's unit; None if it was not measured."""
        found = (one for one in metrics_of(row) if (one["set"], one["metric"]) in self.names)
        return next(found, None)


ABILITY = {
    "mme_cognition": Ability("mme", ("mme_cognition_score",), 1, "ability, MME: score, at most 800", False),
    "mme_perception": Ability(
        "mme", ("mme_perception_score", "mme_percetion_score"), 1, "ability, MME: score, at most 2,000", False
    ),
    "mmmu": Ability("mmmu_val", ("mmmu_acc",), 100, "ability, %"),
    "mmstar": Ability("mmstar", ("average",), 100, "ability, %"),
    "mmvet": Ability("mmvet", ("gpt_eval_score",), 1, "ability, %"),
}
"""{name in align/report/paper.py: metric of lmms_eval}.

Shares from 0 to 1, MM-Vet's from 0 to 100.
"""
