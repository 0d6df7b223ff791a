"""What a run maximises: rewards by name."""

from __future__ import annotations

from dataclasses import dataclass

from align.settings.judging import JudgeSettings
from align.settings.option import option


@dataclass
class RewardSettings:
    """One reward of `method=ppo` and `method=grpo`, or the cost."""

    reward: str = option(
        "model",
        "model: a reward model | judge:<name>: a judge's verdict | rule: refusal phrases | module:function of your own",
    )
    weight: float = option(1.0, "its weight in the sum of the rewards")
    path: str | None = option(
        None, "reward=model: run folder of a run with method=reward, or the folder of its weights"
    )
    recipe: str | None = option(
        None,
        "reward=model without a path: the recipe that trains it, with the same model and seed (own: the run's own recipe "
        "with method=reward); it is trained first if it is absent",
    )
    roles: list[str] = option(["harmful", "benign"], "roles of the rows that it is a reward for")
    judge: JudgeSettings = option(JudgeSettings, "")
    unsafe: float = option(0.0, "reward of an unsafe response to a harmful row, and of a wrong one to a benign row")
    incoherent: float = option(-1.0, "reward of an incoherent response")
