"""Settings that all methods with rollouts share, and their checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from align.errors import UserError
from align.methods.distributed import divides_weights
from align.methods.rollouts.order import Plan
from align.settings import RunConfig


@dataclass
class RolloutSettings:
    """Fields of the configuration class of a method with rollouts, in addition to those of trl."""

    max_length: int | None = field(default=None, metadata={"help": "maximum tokens of a prompt; nothing is truncated"})
    rollout_batch_size: int | None = field(
        default=None,
        metadata={"help": "responses sampled at once on each device (default: per_device_train_batch_size)"},
    )
    rollout_engine: str = field(
        default="transformers",
        metadata={"help": "program that samples responses: transformers | vllm (settings: generation.vllm)"},
    )
    missing_eos_penalty: float = field(
        default=1.0,
        metadata={"help": "taken from the reward of a response that is cut at max_completion_length, as in trl's PPO"},
    )
    max_unscored: float = field(
        default=0.1, metadata={"help": "share of a round's responses without a reward above which the run stops"}
    )
    max_kl: float | None = field(
        default=None,
        metadata={"help": "mean divergence from the reference model, in nats per response, above which the run stops"},
    )
    max_benign_refusals: float | None = field(
        default=None,
        metadata={"help": "share of refused benign rows in a round above which the run stops (reward collapse)"},
    )
    sample_steps: int = field(default=10, metadata={"help": "optimizer steps between samples in rollouts.jsonl"})
    samples: int = field(default=4, metadata={"help": "responses of a round that rollouts.jsonl gets"})
    cost_limit: float = field(default=0.0, metadata={"help": "Safe RLHF: the mean cost that responses may have"})
    multiplier_init: float = field(default=1.0, metadata={"help": "Safe RLHF: the multiplier of the cost at the start"})
    multiplier_lr: float = field(
        default=0.1, metadata={"help": "Safe RLHF: step size of the multiplier's logarithm, once a round"}
    )


ENGINES = ("transformers", "vllm")

INERT = {
    "loss_type": "the loss is the method's own",
    "train_sampling_strategy": "rounds of rollouts have an order of their own",
    "neftune_noise_alpha": "the same noise would change the log-probabilities of the policy that sampled",
}
"""Fields that have no effect on methods with rollouts -> why."""


def check_rollouts(arguments: Any, config: RunConfig) -> None:
    """Raises UserError for settings with which rollouts cannot be sampled, scored or divided."""
    if config.lora is None:
        raise UserError(
            f"method={config.method} with lora=null: policy, critic and reward models are adapters on one base model; "
            "train an adapter (remove lora=null)"
        )
    if config.lora.lora_dropout:
        raise UserError(
            f"lora.lora_dropout={config.lora.lora_dropout} with method={config.method}: with dropout, the policy that "
            "learns would not be the policy that sampled; set it to 0"
        )
    if divides_weights():
        raise UserError(
            f"method={config.method} cannot sample while ZeRO-3 or FSDP divide the model's weights; launch it with "
            "ddp.yaml or zero2.yaml"
        )
    if arguments.rollout_engine not in ENGINES:
        raise UserError(f"train.rollout_engine={arguments.rollout_engine}: expected one of {', '.join(ENGINES)}")
    if not config.rewards:
        raise UserError(
            f"method={config.method} needs a reward: rewards.<name>.reward=model rewards.<name>.path=<run folder of a "
            "reward model>, judge:<name>, rule or module:function"
        )
    if not arguments.temperature > 0 or not 0 < arguments.top_p <= 1:
        raise UserError(
            f"train.temperature={arguments.temperature}, train.top_p={arguments.top_p}: expected more than 0, and top_p "
            "at most 1"
        )
    if (arguments.max_completion_length or 0) < 1:
        raise UserError(f"train.max_completion_length={arguments.max_completion_length}: expected at least 1")
    _check_numbers(arguments)
    size, batch = arguments.generation_batch_size or config.global_batch_size, config.global_batch_size
    if size < 1 or size % batch:
        raise UserError(
            f"train.generation_batch_size={size}: expected a multiple of global_batch_size={batch}, because a round of "
            "rollouts is trained on in whole steps"
        )


def _check_numbers(arguments: Any) -> None:
    least = {"sample_steps": 1, "samples": 0, "top_k": 0, "rollout_batch_size": 1, "max_unscored": 0}
    for name, low in least.items():
        value = getattr(arguments, name)
        if value is not None and value < low:
            raise UserError(f"train.{name}={value}: expected at least {low}")
    if not arguments.multiplier_init > 0:
        raise UserError(f"train.multiplier_init={arguments.multiplier_init}: expected more than 0")


def plan_of(arguments: Any, global_batch_size: int, samples: int, passes: int) -> Plan:
    """How rounds are trained on. Raises UserError if a round would have part of a prompt's responses."""
    size = arguments.generation_batch_size or global_batch_size
    if size % samples:
        raise UserError(
            f"a round of {size} responses (train.generation_batch_size; by default global_batch_size) is no multiple of "
            f"train.num_generations={samples} responses for each prompt"
        )
    return Plan(samples, size // global_batch_size, passes)
