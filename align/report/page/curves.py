"""Losses and rollouts that runs logged, and their rates by training step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from align.errors import UserError
from align.files import read_json, read_jsonl
from align.run_folder import RunFolder

MOST = 400
"""Most points of a line; more cannot be distinguished."""
LENGTH = "completions/mean_length"
ROLLOUTS = ("reward", "objective/kl", LENGTH, "refusals/harmful", "refusals/benign")
"""What methods with rollouts log (align/methods/rollouts/report.py). Only these methods log LENGTH."""

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Curve:
    """Loss and rates of one run by step."""

    losses: Points
    """(step, training loss)"""
    rates: dict[str, Points]
    """{benchmark: (step, rate in percent)}; empty for a run that was evaluated only at its end"""
    notes: list[str]
    rollouts: dict[str, Points] = field(default_factory=dict)
    """{name in ROLLOUTS: (step, value)}; empty for a method without rollouts"""


def curve_of(run: RunFolder) -> Curve:
    """Read the curves of a run; damaged files are named in the notes and not drawn."""
    notes: list[str] = []
    losses: Points = []
    rollouts: dict[str, Points] = {}
    rates: dict[str, Points] = {}
    log = run.path / "log.jsonl"
    try:
        lines = list(read_jsonl(log)) if log.is_file() else []
        losses = _points(lines, "loss")
        rollouts = {name: _thinned(of) for name in ROLLOUTS if (of := _points(lines, name))}
    except (UserError, KeyError, TypeError, AttributeError, ValueError) as error:
        notes.append(f"{log} is damaged, so its curves are not drawn: {error}")
    try:
        points = read_json(run.curve_file)["points"] if run.curve_file.is_file() else []
        for point in points:
            for name, result in point["results"].items():
                if result["rate"] is not None:
                    rates.setdefault(name, []).append((int(point["step"]), 100.0 * float(result["rate"])))
    except (UserError, KeyError, TypeError, AttributeError, ValueError) as error:
        rates = {}
        notes.append(f"{run.curve_file} is damaged, so it is not drawn: {error}")
    return Curve(_thinned(losses), rates, notes, rollouts if LENGTH in rollouts else {})


def _points(lines: Iterable[dict[str, Any]], name: str) -> Points:
    return [(int(line["step"]), float(line[name])) for line in lines if math.isfinite(line.get(name, math.nan))]


def _thinned(points: Points) -> Points:
    every = -(-len(points) // MOST) or 1
    return points[::every]
