"""Build the rewards of a run from its settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from align.config.registry import JUDGES, resolve
from align.errors import UserError
from align.evaluation.judges.build import build, refuse_foreign
from align.evaluation.judges.refusal_match import judge as matched
from align.methods.rewards import Reward, Rewards, Score
from align.models.adapters import POLICY
from align.models.loading import locate
from align.models.weights import Base
from align.rewards.functions import Own, judged, rule
from align.rewards.model import weights_of
from align.rows import ROLES, Row
from align.settings import Judging, RewardSettings, RunConfig

MODEL, RULE, JUDGE = "model", "rule", "judge:"


def rewards_of(config: RunConfig, rendering: str, rows: Sequence[Row] = ()) -> Rewards:
    """The rewards of a run; none for a method that does not sample. `rendering` is the renderer's identity.

    A reward model that its recipe has yet to train is left out: a run trains it before this, and only
    a dry run does not (align/training/needed_runs.py). Raises UserError for a reward that cannot be
    computed, before any response is sampled.
    """
    settings = {f"rewards.{name}": of for name, of in config.rewards.items()}
    if config.cost is not None:
        settings["cost"] = config.cost
    to_come = [key for key, of in settings.items() if of.reward == MODEL and of.recipe and of.path is None]
    settings = {key: of for key, of in settings.items() if key not in to_come}
    if not settings:
        return Rewards()
    facts = {"rendering": rendering, **reward_facts(config)}
    built = [_reward(key, of, facts, rows) for key, of in settings.items()]
    cost = built.pop() if "cost" in settings else None
    return Rewards(tuple(built), cost, lambda response: matched(Row("", ""), response).verdict == "refusal")


def reward_facts(config: RunConfig) -> dict[str, Any]:
    """What must be equal in a run and in its reward models, in addition to the renderer."""
    base = Base.at(locate(config.model), replace(config.model, adapter=None)).weights
    return {"base": base, "quantization": config.model.quantization, "view": config.view}


def _reward(key: str, settings: RewardSettings, facts: dict[str, Any], rows: Sequence[Row]) -> Reward:
    name = key.rpartition(".")[2]
    if not re.fullmatch(r"\w+", name) or POLICY in name:
        raise UserError(f"{key}: expected a name of letters, digits and underscores, without {POLICY!r}")
    if unknown := [role for role in settings.roles if role not in ROLES]:
        raise UserError(f"{key}.roles: {unknown[0]!r} is unknown; expected {' or '.join(ROLES)}")
    roles = tuple(settings.roles)
    if settings.reward == MODEL:
        return Reward(name, settings.weight, roles, folder=str(weights_of(key, settings.path, facts)))
    if settings.path is not None:
        raise UserError(f"{key}.path={settings.path}: only {key}.reward=model has a path; remove it")
    score = _score(key, settings, [row for row in rows if row.role in roles])
    return Reward(name, settings.weight, roles, score=score)


def _score(key: str, settings: RewardSettings, rows: Sequence[Row]) -> Score:
    if settings.reward == RULE:
        return rule(settings)
    if settings.reward.startswith(JUDGE):
        name = settings.reward.removeprefix(JUDGE)
        judge = build(name, Judging(**vars(settings.judge), name=[name]), JUDGES, f"{key}.judge")
        refuse_foreign(judge, rows, key)
        for role in settings.roles:
            try:
                judge.labels("vsil_free" if role == "harmful" else "benign")
            except UserError as error:
                others = ", ".join(other for other in settings.roles if other != role)
                raise UserError(
                    f"{key}.reward={settings.reward}: it cannot judge {role} rows ({error}); set {key}.roles={others}, "
                    f"and add another reward for {role} rows"
                ) from error
        return judged(judge, settings)
    if ":" not in settings.reward:
        raise UserError(
            f"{key}.reward={settings.reward}: expected {MODEL}, {JUDGE}<name>, {RULE}, or module:function of your own"
        )
    return Own(key, settings.reward, resolve(f"{key}.reward", settings.reward))
