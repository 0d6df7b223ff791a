"""What a sweep would cost: GPU hours of its training, each kind of run estimated once (align/planning/)."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from align.errors import UserError
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
"""Settings of a training that do not change how much is computed."""


@dataclass(frozen=True)
class Cost:
    """GPU hours of many runs."""

    hours: dict[str, float]
    """By GPU, of the runs that can be estimated."""
    unknown: dict[str, int]
    """{why not: of how many runs}"""


def gpus_of(config: SweepConfig) -> int:
    """How many GPUs a run is given."""
    if config.launcher == "slurm":
        return max((config.cluster.nodes or 1) * (config.cluster.gpus_per_node or 1), 1)
    return max(len(config.devices) // (config.at_once or 1), 1)


def cost_of(cells: Sequence[Cell], gpus: int) -> Cost:
    """What these runs cost together, on so many GPUs each; `num_processes=` of a run goes over it.

    Raises UserError where trl would refuse the settings of a training, or its batch cannot be divided over so many GPUs.
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
        if model in broken:  # asked once: without a network that takes its time
            unknown[broken[model]] += len(runs)
            continue
        try:
            for gpu, of_one in _hours(runs[0], gpus).items():
                hours[gpu] += of_one * len(runs)
        except UserError as error:
            why = f"{runs[0].values['recipe']} on {runs[0].values['model']['name']}: {error}"
            if "config.json" in str(error):
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
