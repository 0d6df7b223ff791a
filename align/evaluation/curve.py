"""A curve: evaluate the weights that a run kept during training, like its final weights."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from align.answering.model import Model
from align.console import Display, Named
from align.evaluation.evaluation import evaluate
from align.files import write_json
from align.run_folder import SCHEMA, RunFolder
from align.settings import Evaluate

Results = dict[str, dict[str, Any]]
"""{benchmark: result}"""


def point_steps(every_steps: int, steps: int) -> list[int]:
    """Steps whose weights are kept, without the last step, whose weights are the final ones."""
    return list(range(every_steps, steps, every_steps))


def lacking(run: RunFolder, every_steps: int | None) -> str | None:
    """A line on curve points that a finished run did not keep; None if it has all."""
    there = run.curve_points()
    absent = (
        [step for step in point_steps(every_steps, run.manifest()["steps"]) if step not in there] if every_steps else []
    )
    if not absent:
        return None
    shown = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
    return (
        f"evaluate.every_steps={every_steps}: {run.path} did not keep the weights of {len(absent)} steps ({shown}), so "
        "its curve lacks them. Weights are kept only during training. To train again with them, give another "
        "output_dir="
    )


def evaluate_curve(
    run: RunFolder, final: Results, config: Evaluate, load: Callable[[Path], Model], display: Display | None = None
) -> dict[int, Results]:
    """Evaluate every point of a run's curve in order -> {step: results}, with the final results.

    curve.json is written after each point. `load` makes a model from a folder of weights. Empty for
    a run without points. Raises UserError.
    """
    points = run.curve_points()
    if not points:
        return {}
    display = display or Display()
    found = {run.manifest()["steps"]: final}
    _write(run, found)
    for step, point in points.items():
        gc.collect()  # frees the device memory of the previous model
        found[step] = evaluate(load(point.weights), config, point.evaluation, Named(display, f"step {step}"))
        _write(run, found)
    return dict(sorted(found.items()))


def _write(run: RunFolder, found: dict[int, Results]) -> None:
    if any(found.values()):  # with judge=none there are no results, and earlier ones stay
        points = [{"step": step, "results": found[step]} for step in sorted(found)]
        write_json(run.curve_file, {"schema": SCHEMA, "points": points})
