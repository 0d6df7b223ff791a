"""What is logged of a round of rollouts, when a run stops because of it, and samples to read."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.files import append_jsonl, open_jsonl, write_text
from align.methods.rewards import Rewards
from align.methods.rollouts.rollout import Rollout
from align.rows import ROLES, Row

KL = "objective/kl"
"""The name in the log of the mean divergence from the reference model, in nats per response, as in
trl's last PPO. trl's GRPO logs another estimate, per token, as `kl`."""


def summary(
    rollouts: Sequence[Rollout], roles: Sequence[str], rewards: Rewards, facts: Mapping[str, Any]
) -> dict[str, float]:
    """{name in the log: number}, with trl's names where it has them. `roles` of all rows, by number."""
    scores = [one.score for one in rollouts if one.score is not None]
    found = {
        "reward": _mean(scores),
        "reward_std": statistics.pstdev(scores),
        KL: _mean([one.kl for one in rollouts]),
        "completions/mean_length": _mean([len(one.tokens) for one in rollouts]),
        "completions/clipped_ratio": _mean([not one.finished for one in rollouts]),
        "unscored": _mean([one.score is None for one in rollouts]),
    }
    for reward in rewards.all:
        values = [one.rewards.get(reward.name) for one in rollouts]
        found[f"rewards/{reward.name}/mean"] = _mean([value for value in values if value is not None])
    if rewards.refuses is not None:
        for role in ROLES:
            responses = [one.response for one in rollouts if roles[one.row] == role]
            if responses:
                found[f"refusals/{role}"] = _mean([rewards.refuses(response) for response in responses])
    return found | {name: value for name, value in facts.items() if isinstance(value, float)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def reason_to_stop(found: Mapping[str, float], arguments: Any) -> str | None:
    """Why a run stops after a round with this summary; None to continue."""
    bounds = {
        KL: (arguments.max_kl, "max_kl", "the mean divergence from the reference model, in nats per response,"),
        "refusals/benign": (
            arguments.max_benign_refusals,
            "max_benign_refusals",
            "reward collapse: the share of benign rows that the policy refuses",
        ),
    }
    for name, (bound, key, what) in bounds.items():
        if bound is not None and found.get(name, bound) > bound:
            return f"{what} is {found[name]:.3g}, above train.{key}={bound:g}"
    return None


def write_samples(path: Path, step: int, rollouts: Sequence[Rollout], rows: Sequence[Row]) -> None:
    """Append rollouts to the run's rollouts.jsonl (docs/formats.md)."""
    with path.open("a", encoding="utf-8") as file:
        for one, row in zip(rollouts, rows, strict=True):
            record = {"step": step, "id": row.id, "role": row.role, "sample": one.sample, "prompt": row.prompt}
            record |= {"response": one.response, "finished": one.finished, "tokens": len(one.tokens)}
            append_jsonl(file, record | {"score": one.score, "rewards": one.rewards, "kl": round(one.kl, 4)})


def keep_samples(path: Path, step: int) -> None:
    """Keep the samples of rounds before a checkpoint's step; later rounds are sampled again."""
    lines, file = open_jsonl(path)
    file.close()
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines if line["step"] < step))
