"""`best_of_n`: several sampled responses, of which a judge chooses one.

Source: the alignment step of ETA (Ding et al. 2024, "Evaluating Then Aligning", arXiv 2410.06625), in
a simpler form: ETA samples sentence by sentence after a fixed beginning, and scores with CLIP and a
reward model; here whole responses are sampled, and a judge of responses labels them. The judge does not
know whether a request is harmful: every response is judged as one to a request that may be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from align.defences.defence import Assessor, Defence, Outcome, Steps, ask_all, consult
from align.errors import UserError
from align.rows import Row
from align.settings.option import option

PREFERRED = ("safe", "warning", "refusal", "other", "unsafe", "incoherent")
"""Labels from the best to the worst: help that is safe is better than a refusal."""


@dataclass
class BestOfNSettings:
    """Settings of `best_of_n`."""

    n: int = option(4, "responses that are sampled for each request")
    judge: str | None = option(None, "judge of responses that chooses: llamaguard, vlsbench, rule, ...")
    judge_settings: dict[str, Any] = field(default_factory=dict)


class BestOfN(Defence):
    """n calls and n labels for a response. Without all labels there is no response: nothing is guessed."""

    name = "best_of_n"
    Settings = BestOfNSettings
    samples = True

    def __init__(self, settings: BestOfNSettings, assessor: Assessor | None):
        if settings.n < 2:
            raise UserError(f"defence_settings.best_of_n.n={settings.n}: expected at least 2 responses to choose from")
        if assessor is None:
            raise UserError(
                "defence=best_of_n: defence_settings.best_of_n.judge= is missing. Give a judge of responses, e.g. "
                "defence_settings.best_of_n.judge=llamaguard"
            )
        self.settings, self.assessor = settings, assessor

    @property
    def most_calls(self) -> int:
        """All samples."""
        return int(self.settings.n)

    def steps(self, row: Row) -> Steps:
        """The response with the best label; of equal ones the first."""
        replies = yield from ask_all([row] * self.settings.n)
        judged = [i for i, reply in enumerate(replies) if reply.text]  # an empty response needs no judge
        labels = (yield from consult(row, [replies[i].text for i in judged])) if judged else []
        ranks = [len(PREFERRED)] * len(replies)
        for i, label in zip(judged, labels, strict=True):
            ranks[i] = PREFERRED.index(label.label)
        best = ranks.index(min(ranks))
        return Outcome(replies[best], acted=best > 0)
