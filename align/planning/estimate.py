"""The plan of one run: its parameters, steps, FLOPs, memory and hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from align.config.merge import Composed
from align.config.registry import REWARD_MODEL
from align.fast.images_once import unchanged
from align.fast.model_inputs import layout_for
from align.planning.flops import DENSE, Flops, flops
from align.planning.images import image_tokens
from align.planning.layers import Matrix, matrices
from align.planning.memory import LAUNCHES, Held, Memory, activations, fits, held, in_gib, memory
from align.planning.rollouts import (
    BANDWIDTH,
    Rollouts,
    cache_bytes,
    decoding_seconds,
    held_with_rollouts,
    in_memory,
    rollout_step,
    rollout_steps,
    samples,
    with_critic,
    with_rollouts,
)
from align.planning.skeleton import Skeleton, skeleton
from align.planning.step import Step, arguments_of, checkpoints_activations, method_of, rows_of, step_of, steps_of
from align.settings import PlanSettings, RunConfig

PEAKS = {"A100-80G": DENSE["A100"], "H100": DENSE["H100"]}
"""{GPU of a plan: peak FLOP/s}"""


@dataclass(frozen=True)
class Launched:
    """A run on `gpus` GPUs."""

    gpus: int
    rows: int
    """Rows of one forward pass on one GPU."""
    accumulated: int
    memory: dict[str, Memory]
    """{launch configuration: memory}.

    On one GPU nothing is divided, so there is only one. Full fine-tuning of 16-bit weights needs
    ZeRO.
    """
    fits: str | None
    """The first launch configuration that fits."""
    hours: dict[str, float]
    """{GPU: hours}"""


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a run."""

    recipe: str
    model: str
    method: str
    full: bool
    """Full fine-tuning, without an adapter."""
    parameters: dict[str, dict[str, int]]
    rows: int
    steps: int
    step: Step
    flops: Flops
    """FLOPs of one step."""
    launched: list[Launched]
    rollouts: Rollouts | None = None
    """For a method that samples its responses."""
    in_memory: tuple[float, float] | None = None
    """For such a method: bytes of weights, gradients and optimizer states.

    (On one base, with a base for each model.)
    """

    @property
    def all(self) -> int:
        """Number of parameters, including an adapter's."""
        return sum(of["all"] for of in self.parameters.values())

    @property
    def trainable(self) -> int:
        """Number of trained parameters."""
        return sum(of["trainable"] for of in self.parameters.values())

    def record(self) -> dict[str, Any]:
        """The estimate as a JSON object."""
        return {
            "recipe": self.recipe,
            "model": self.model,
            "method": self.method,
            "parameters": self.parameters,
            "rows": self.rows,
            "steps": self.steps,
            "step": asdict(self.step),
            "flops_per_step": asdict(self.flops) | {"total": self.flops.total},
            "flops": self.flops.total * self.steps,
            "gpus": [
                {
                    "gpus": it.gpus,
                    "per_device_train_batch_size": it.rows,
                    "gradient_accumulation_steps": it.accumulated,
                    "memory_gib": {launch: in_gib(of) for launch, of in it.memory.items()},
                    "fits": it.fits,
                    "hours": it.hours,
                }
                for it in self.launched
            ],
        } | ({} if self.rollouts is None else {"rollouts": asdict(self.rollouts) | self._in_gib()})

    def _in_gib(self) -> dict[str, float]:
        shared, separate = self.in_memory or (0.0, 0.0)
        return {"one_base_gib": round(shared / 2**30, 2), "separate_models_gib": round(separate / 2**30, 2)}


@dataclass(frozen=True)
class _Planned:
    """What all numbers of GPUs have in common."""

    config: RunConfig
    assumed: PlanSettings
    it: Skeleton
    found: Sequence[Matrix]
    checkpointing: bool
    steps: int
    step: Step
    spent: Flops
    of: Held
    rollouts: Rollouts | None


def estimate(composed: Composed, assumed: PlanSettings) -> Estimate:
    """Estimate a run. Raises UserError if its configuration is wrong or insufficient."""
    config = composed.config
    rows = rows_of(config)
    numbers = [config.num_processes] if config.num_processes else assumed.gpus
    arguments = [arguments_of(composed, gpus) for gpus in numbers]
    it = skeleton(composed, rows.share_with_images() > 0, assumed.configs)
    checkpointing, full = checkpoints_activations(config), config.lora is None
    found = matrices(it, checkpointing)
    shown, width = image_tokens(it.config, config.model, assumed.image), it.config.get_text_config().hidden_size
    again = full or not unchanged(it.model, it.family)
    optimizer, rollouts = str(arguments[0].optim.value), None
    of = held(it, config, optimizer)
    if samples(arguments[0]):
        method = method_of(config.method)
        step, rollouts = rollout_step(config, method, rows, arguments[0], shown, assumed, again)
        steps = rollout_steps(config, rows, arguments[0])
        of = held_with_rollouts(of, rollouts, config, width, optimizer, assumed.configs)
    else:
        layout, _ = layout_for(config.layout, it.model, it.family, arguments[0])
        step = step_of(composed, rows, arguments[0], shown, assumed, layout, width, reference_encodes=again)
        steps = steps_of(composed, rows, arguments[0])
    spent = flops(found, step, checkpointing, reference_has_adapter=bool(config.model.adapter))
    if rollouts is not None:
        spent = with_rollouts(spent, found, step, rollouts, checkpointing)
    planned = _Planned(config, assumed, it, found, checkpointing, steps, step, spent, of, rollouts)
    on = [_launched(planned, gpus, its) for gpus, its in zip(numbers, arguments, strict=True)]
    memory = None if rollouts is None else in_memory(of, rollouts)
    towers, model = it.towers, config.model.name
    return Estimate(
        config.recipe, model, config.method, full, towers, rows.total, steps, step, spent, on, rollouts, memory
    )


def _launched(run: _Planned, gpus: int, arguments: Any) -> Launched:
    """The run on `gpus` GPUs."""
    batch, assumed = arguments.per_device_train_batch_size, run.assumed
    dropout = bool(run.config.lora and run.config.lora.lora_dropout)
    active = activations(run.it, run.found, run.step, batch / run.config.global_batch_size, dropout)
    at_once = getattr(arguments, "rollout_batch_size", None) or batch
    peak = active.peak(run.checkpointing)
    if run.rollouts is not None:
        active = active if run.rollouts.critic is None else with_critic(active)
        # Sampling keeps no activations, and training no keys and values.
        peak = max(active.peak(run.checkpointing), cache_bytes(run.it, run.found, run.rollouts, at_once))
    by_launch = {
        launch: memory(run.it, run.of, run.config, run.step, launch, gpus, peak, assumed.reserve * 2**30)
        for launch in _launches(run.config, gpus, run.it.model.dtype, run.rollouts is not None)
    }
    hours = {gpu: _hours(run, gpus, at_once, gpu) for gpu in PEAKS}
    first = next((launch for launch, one in by_launch.items() if fits(one, assumed.memory)), None)
    return Launched(gpus, batch, arguments.gradient_accumulation_steps, by_launch, first, hours)


def _hours(run: _Planned, gpus: int, at_once: int, gpu: str) -> float:
    computed = (run.spent.total - run.spent.decoding) / (gpus * PEAKS[gpu] * run.assumed.utilization)
    if run.rollouts is not None:
        bandwidth = BANDWIDTH[gpu] * run.assumed.decoding
        computed += decoding_seconds(run.it, run.found, run.config, run.rollouts, gpus, at_once, bandwidth)
    return run.steps * computed / 3600


def _launches(config: RunConfig, gpus: int, dtype: Any, sampled: bool) -> Sequence[str]:
    if config.lora is None and dtype.itemsize < 4:  # rejected under ddp
        return LAUNCHES[1:] if gpus > 1 else LAUNCHES[1:2]
    if gpus == 1:
        return LAUNCHES[:1]
    # ZeRO-3 cannot divide bitsandbytes' weights, and these methods cannot be trained under it.
    whole = config.model.quantization or sampled or config.method == REWARD_MODEL
    return LAUNCHES[:2] if whole else LAUNCHES
