"""The plan of one run: its parameters, steps, FLOPs, memory and hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from align.config.merge import Composed
from align.fast.images_once import unchanged
from align.fast.model_inputs import layout_for
from align.planning.flops import DENSE, Flops, flops
from align.planning.images import image_tokens
from align.planning.layers import matrices
from align.planning.memory import LAUNCHES, Memory, activations, fits, held, in_gib, memory
from align.planning.skeleton import skeleton
from align.planning.step import Step, arguments_of, checkpoints_activations, rows_of, step_of, steps_of
from align.settings import PlanSettings

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
        }


def estimate(composed: Composed, assumed: PlanSettings) -> Estimate:
    """Estimate a run. Raises UserError if its configuration is wrong or insufficient."""
    config = composed.config
    rows = rows_of(config)
    numbers = [config.num_processes] if config.num_processes else assumed.gpus
    arguments = [arguments_of(composed, gpus) for gpus in numbers]
    it = skeleton(composed, rows.share_with_images() > 0, assumed.configs)
    checkpointing, full = checkpoints_activations(config), config.lora is None
    found = matrices(it, checkpointing)
    layout, _ = layout_for(config.layout, it.model, it.family, arguments[0])
    shown, width = image_tokens(it.config, config.model, assumed.image), it.config.get_text_config().hidden_size
    alike = not full and unchanged(it.model, it.family)
    step = step_of(composed, rows, arguments[0], shown, assumed, layout, width, reference_encodes=not alike)
    spent = flops(found, step, checkpointing, reference_has_adapter=bool(config.model.adapter))
    steps = steps_of(composed, rows, arguments[0])
    of = held(it, config, str(arguments[0].optim.value))
    dropout = bool(config.lora and config.lora.lora_dropout)

    def launched(gpus: int, its: Any) -> Launched:
        share = its.per_device_train_batch_size / config.global_batch_size
        active = activations(it, found, step, share, dropout).peak(checkpointing)
        by_launch = {
            launch: memory(it, of, config, step, launch, gpus, active, assumed.reserve * 2**30)
            for launch in _launches(config, gpus, it.model.dtype)
        }
        seconds = {gpu: steps * spent.total / (gpus * peak * assumed.utilization) for gpu, peak in PEAKS.items()}
        return Launched(
            gpus,
            its.per_device_train_batch_size,
            its.gradient_accumulation_steps,
            by_launch,
            next((launch for launch, one in by_launch.items() if fits(one, assumed.memory)), None),
            {gpu: one / 3600 for gpu, one in seconds.items()},
        )

    on = [launched(gpus, its) for gpus, its in zip(numbers, arguments, strict=True)]
    return Estimate(
        config.recipe, config.model.name, config.method, full, it.towers, rows.total, steps, step, spent, on
    )


def _launches(config: Any, gpus: int, dtype: Any) -> Sequence[str]:
    if config.lora is None and dtype.itemsize < 4:  # rejected under ddp
        return LAUNCHES[1:] if gpus > 1 else LAUNCHES[1:2]
    if gpus == 1:
        return LAUNCHES[:1]
    # ZeRO-3 cannot divide bitsandbytes' weights.
    return LAUNCHES[:2] if config.model.quantization else LAUNCHES
