"""Samples of the responses that methods with rewards trained on (rollouts.jsonl), to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.errors import UserError
from align.files import read_jsonl
from align.report.arms import Arm
from align.report.run_results import Evaluated
from align.report.tables.rates import labels, sorted_arms

MOST = 12
"""Most samples of a run."""


def samples(arms: Sequence[Arm], most: int) -> tuple[list[dict[str, Any]], list[str]]:
    """-> ([{name, seed, samples, of}] of each arm's first seed, notes); at most `most` of each."""
    arms = sorted_arms(arms)
    label, notes, found = labels([arm.row for arm in arms]), list[str](), []
    several = len({arm.row["model"] for arm in arms}) > 1
    for arm in arms:
        lines = _read(arm.runs[0], notes)
        if shown := _spread(lines, min(most, MOST)):
            name = f"{arm.row['model']} {label(arm.row)}" if several else label(arm.row)
            found.append({"name": name, "seed": arm.runs[0].row["seed"], "samples": shown, "of": len(lines)})
    return found, notes


def _read(run: Evaluated, notes: list[str]) -> list[dict[str, Any]]:
    file = run.run.rollouts_file
    try:
        return [_sample(line) for line in read_jsonl(file)] if file.is_file() else []
    except (UserError, KeyError, TypeError, AttributeError, ValueError) as error:
        notes.append(f"{file} is damaged, so its samples are not shown: {error!r}")
        return []


def _sample(line: dict[str, Any]) -> dict[str, Any]:
    rewards = {str(name): value if value is None else float(value) for name, value in line["rewards"].items()}
    return {
        "step": int(line["step"]),
        "id": str(line["id"]),
        "role": str(line["role"]),
        "harmful": line["role"] != "benign",
        "prompt": str(line["prompt"]),
        "response": str(line["response"]),
        "cut": not line["finished"],
        "score": None if line["score"] is None else float(line["score"]),
        "rewards": rewards if len(rewards) > 1 else {},
        "kl": float(line["kl"]),
    }


def _spread(lines: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most `most` samples, evenly spread from the first to the last."""
    if len(lines) <= most:
        return list(lines)
    if most < 2:
        return list(lines[:most])
    return [lines[round(i * (len(lines) - 1) / (most - 1))] for i in range(most)]
