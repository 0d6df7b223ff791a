"""The paper's ability sets in what lmms_eval writes of them: which metric of which task, and how it becomes the paper's unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.report.lmms_results import metrics_of


@dataclass(frozen=True)
class Ability:
    """One number of ability."""

    task: str
    metrics: tuple[str, ...]
    """What it is called; versions of lmms_eval differ."""
    scale: float
    """From its unit there to the paper's."""
    heading: str
    percent: bool = True
    """Whether the paper's unit is percent."""

    @property
    def names(self) -> set[tuple[str, str]]:
        """(task, metric) by any of its names."""
        return {(self.task, metric) for metric in self.metrics}

    def of(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """The metric of a row, in lmms_eval's unit; None where it was not measured."""
        found = (one for one in metrics_of(row) if (one["set"], one["metric"]) in self.names)
        return next(found, None)


ABILITY = {
    "mme_cognition": Ability("mme", ("mme_cognition_score",), 1, "ability, MME: a score to 800", False),
    "mme_perception": Ability(
        "mme", ("mme_perception_score", "mme_percetion_score"), 1, "ability, MME: a score to 2,000", False
    ),
    "mmmu": Ability("mmmu_val", ("mmmu_acc",), 100, "ability, %"),
    "mmstar": Ability("mmstar", ("average",), 100, "ability, %"),
    "mmvet": Ability("mmvet", ("gpt_eval_score",), 1, "ability, %"),
}
"""{name in align/report/paper.py: what lmms_eval calls it}; shares are of 1 there but for MM-Vet's, which are of 100."""
