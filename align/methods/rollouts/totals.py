"""From rewards by name to one score for each response; a response without a reward has none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from accelerate.utils import broadcast_object_list

from align.errors import UserError
from align.methods.rewards import Reward, Rewards
from align.methods.rollouts.rollout import Rollout
from align.rows import Row


def ask_functions(rewards: Rewards, rollouts: Sequence[Rollout], rows: Sequence[Row], accelerator: Any) -> None:
    """Ask the rewards that are functions, on one process, which tells all others. Raises UserError.

    `rows` are those of the rollouts.
    """
    found: list[Any] = [{}, None]
    if accelerator.is_main_process:
        texts = [one.response for one in rollouts]
        try:
            found[0] = {reward.name: _asked(reward, rows, texts) for reward in rewards.all if reward.score}
        except Exception as error:  # all processes stop together
            if accelerator.num_processes == 1:
                raise
            found[1] = str(error)
    if accelerator.num_processes > 1:
        broadcast_object_list(found)
    if found[1] is not None:
        raise UserError(f"rewards: {found[1]}")
    for name, values in found[0].items():
        for one, value in zip(rollouts, values, strict=True):
            one.rewards[name] = None if value is None else float(value)


def _asked(reward: Reward, rows: Sequence[Row], texts: Sequence[str]) -> list[float | None]:
    """A function's rewards; None for rows of other roles, which it is not asked about (see `add_up`)."""
    assert reward.score is not None
    places = [i for i, row in enumerate(rows) if row.role in reward.roles]
    values = dict(zip(places, reward.score([rows[i] for i in places], [texts[i] for i in places]), strict=True))
    return [values.get(i) for i in range(len(rows))]


def add_up(one: Rollout, role: str, rewards: Rewards, missing_eos_penalty: float) -> None:
    """Set the score, and the cost, of a response to a row with this role."""
    applicable = [reward.name for reward in rewards.all if role in reward.roles]
    one.rewards = {name: one.rewards[name] for name in applicable}
    total = _weighted(one, [reward for reward in rewards.terms if role in reward.roles])
    penalty = 0.0 if one.finished else missing_eos_penalty
    one.score = None if total is None else total - penalty
    if rewards.cost is not None:
        one.cost = _weighted(one, [rewards.cost]) if role in rewards.cost.roles else 0.0
        one.score = None if one.cost is None else one.score


def _weighted(one: Rollout, terms: Sequence[Reward]) -> float | None:
    """The weighted sum of a response's rewards; None if one of them has no finite value."""
    values = [one.rewards.get(reward.name) for reward in terms]
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < len(values):
        return None
    return sum(reward.weight * value for reward, value in zip(terms, known, strict=True))
