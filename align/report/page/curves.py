"""Losses that runs logged, and their rates by training step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from align.errors import UserError
from align.files import read_json, read_jsonl
from align.run_folder import RunFolder

MOST = 400
"""Most points of a line; more cannot be distinguished."""


@dataclass(frozen=True)
class Curve:
    """Loss and rates of one run by step."""

    losses: list[tuple[int, float]]
    """(step, training loss)"""
    rates: dict[str, list[tuple[int, float]]]
    """{benchmark: (step, rate in percent)}; empty for a run that was evaluated only at its end"""
    notes: list[str]


def curve_of(run: RunFolder) -> Curve:
    """Read the curves of a run; damaged files are named in the notes and not drawn."""
    notes: list[str] = []
    losses: list[tuple[int, float]] = []
    rates: dict[str, list[tuple[int, float]]] = {}
    log = run.path / "log.jsonl"
    try:
        lines = read_jsonl(log) if log.is_file() else ()
        losses = [
            (int(line["step"]), float(line["loss"])) for line in lines if math.isfinite(line.get("loss", math.nan))
        ]
    except (UserError, KeyError, TypeError, AttributeError, ValueError) as error:
        notes.append(f"{log} is damaged, so its loss is not drawn: {error}")
    try:
        points = read_json(run.curve_file)["points"] if run.curve_file.is_file() else []
        for point in points:
            for name, result in point["results"].items():
                if result["rate"] is not None:
                    rates.setdefault(name, []).append((int(point["step"]), 100.0 * float(result["rate"])))
    except (UserError, KeyError, TypeError, AttributeError, ValueError) as error:
        rates = {}
        notes.append(f"{run.curve_file} is damaged, so it is not drawn: {error}")
    return Curve(_thinned(losses), rates, notes)


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    every = -(-len(points) // MOST) or 1
    return points[::every]
