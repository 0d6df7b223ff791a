"""Estimate the GPU hours of a sweep's training; each kind of run once (align/planning/)."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from align.errors import NoModelConfig, UserError
from align.settings import PlanSettings, SweepConfig
from align.sweep.cells import Cell

WITHOUT_EFFECT = (
    *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "max_grad_norm"),
    *(
        "beta",
        "loss_weights",
        "label_smoothing",
        "logging_steps",
        "save_steps",
        "save_strategy",
        "save_total_limit",
        "report_to",
    ),
)
"""Training settings that do not change the amount of computation."""


@dataclass(frozen=True)
class Cost:
    """GPU hours of many runs."""

    hours: dict[str, float]
    """{GPU: hours} of the runs that can be estimated."""
    unknown: dict[str, int]
    """{reason: number of runs that cannot be estimated}"""


def gpus_of(config: SweepConfig) -> int:
    """Number of GPUs of each run."""
    if config.launcher == "slurm":
        return max((config.cluster.nodes or 1) * (config.cluster.gpus_per_node or 1), 1)
    return max(len(config.devices) // (config.at_once or 1), 1)


def cost_of(cells: Sequence[Cell], gpus: int) -> Cost:
    """Total cost of runs on `gpus` GPUs each; `num_processes=` of a run overrides it.

    Raises UserError if trl rejects the training settings, or if the batch cannot be divided by the
    GPUs.
    """
    alike: dict[str, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(_what_counts(cell), []).append(cell)
    broken: dict[str, str] = {}
    hours: defaultdict[str, float] = defaultdict(float)
    unknown: Counter[str] = Counter()
    for runs in alike.values():
        _check(runs[0], gpus)
        model = str(runs[0].values["model"]["path"])
        if model in broken:  # only once: without a network it is slow
            unknown[broken[model]] += len(runs)
            continue
        try:
            for gpu, of_one in _hours(runs[0], gpus).items():
                hours[gpu] += of_one * len(runs)
        except UserError as error:
            why = f"{runs[0].values['recipe']} on {runs[0].values['model']['name']}: {error}"
            if isinstance(error, NoModelConfig):
                broken[model] = why
            unknown[why] += len(runs)
    return Cost(dict(hours), dict(unknown))


def _hours(cell: Cell, gpus: int) -> dict[str, float]:
    from align.planning.estimate import estimate

    [on] = estimate(cell.composed(), PlanSettings(gpus=[gpus])).launched
    return {gpu: of_one * on.gpus for gpu, of_one in on.hours.items()}


def _check(cell: Cell, gpus: int) -> None:
    from align.planning.step import arguments_of

    try:
        arguments_of(cell.composed(), cell.values["num_processes"] or gpus)
    except UserError as error:
        raise UserError(f"{cell.values['recipe']} on {cell.values['model']['name']}: {error}") from error


def _what_counts(cell: Cell) -> str:
    values = {
        key: value for key, value in cell.values.items() if key not in ("seed", "evaluate", "variant", "output_dir")
    }
    values["train"] = {key: value for key, value in cell.values["train"].items() if key not in WITHOUT_EFFECT}
    return json.dumps(values, sort_keys=True)
