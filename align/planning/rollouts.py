"""Methods with rollouts: sampling, passes over responses, several adapters on one base.

A round is sampled and scored once and trained on in several steps; everything here is the share of
one optimizer step. Every response is assumed to have `max_completion_length` tokens.

Sampling costs a pass over the prompt, and for each token the same as one position of a forward pass:
2 n for each matrix of n weights, and 4 d for each earlier position of an attention of width d. Its
time is not that of its FLOPs: decoding is assumed to be memory-bound, so that each token of a batch
takes as long as reading the language model's weights and the keys and values of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from align.config.compose import compose_run
from align.config.files import available
from align.errors import UserError
from align.methods.rollouts.order import InRounds, Plan
from align.methods.rollouts.settings import RolloutSettings, plan_of
from align.methods.sampler import steps
from align.planning.flops import Flops, flops, forward_of
from align.planning.images import ImageTokens
from align.planning.layers import HEAD, Matrix
from align.planning.memory import Activations, Held, held, matrix_bytes
from align.planning.skeleton import Skeleton, skeleton
from align.planning.step import Pass, Rows, Step
from align.settings import PlanSettings, RewardSettings, RunConfig

BANDWIDTH = {"A100-80G": 2.039e12, "H100": 3.35e12}
"""{GPU of a plan: bytes of memory read in a second} (NVIDIA's data sheets, SXM)."""
FLOAT32 = 4


@dataclass(frozen=True)
class Rollouts:
    """The rollouts of one optimizer step, over all GPUs."""

    responses: float
    """A round's responses, divided by the steps that train on it."""
    round: int
    """Responses of a round."""
    plan: Plan
    prompt: int
    """Tokens of a prompt, its image included."""
    tokens: int
    """Tokens of a response."""
    scored: Pass
    """The policy's pass over the responses, without gradient; the reference model's is in `Step`."""
    critic: Pass | None
    """The critic's pass over the responses, without gradient."""
    trained_critic: Pass | None
    """The critic's pass in training."""
    reward: Pass
    """The pass of one reward model."""
    reward_models: int
    models: int
    """Models that would be in memory without a common base."""


def samples(arguments: Any) -> bool:
    """Whether a method with these arguments trains on responses that it samples."""
    return isinstance(arguments, RolloutSettings)


def plan_of_run(arguments: Any, config: RunConfig) -> Plan:
    """How the run's rounds are trained on. Raises UserError."""
    passes = arguments.num_iterations if hasattr(arguments, "num_iterations") else arguments.num_ppo_epochs
    return plan_of(arguments, config.global_batch_size, getattr(arguments, "num_generations", 1), passes)


def rollout_steps(config: RunConfig, rows: Rows, arguments: Any) -> int:
    """Number of optimizer steps of the run, computed as in training."""
    order = InRounds(rows.total, config.global_batch_size, 0, int, plan_of_run(arguments, config))
    return steps(order, arguments)


def rollout_step(
    config: RunConfig, method: Any, rows: Rows, arguments: Any, image: ImageTokens, assumed: PlanSettings, encodes: bool
) -> tuple[Step, Rollouts]:
    """One optimizer step, and its share of a round. Raises UserError for prompts that are too long.

    `encodes`: whether every pass over a response encodes its image again.
    """
    share, size, tokens = rows.share_with_images(), config.global_batch_size, arguments.max_completion_length
    prompt = assumed.prompt_tokens + (image.tokens if share else 0)
    if arguments.max_length is not None and prompt > arguments.max_length:
        raise UserError(
            f"a prompt of {prompt} tokens (text {assumed.prompt_tokens}, image {prompt - assumed.prompt_tokens}) is "
            f"longer than train.max_length={arguments.max_length}, and the run would reject it. Give a higher "
            "train.max_length=, or set the sizes of rows with plan.prompt_tokens, plan.image."
        )
    multiple = arguments.pad_to_multiple_of or 1
    length = -(-(prompt + tokens) // multiple) * multiple
    plan = plan_of_run(arguments, config)
    responses = size / plan.passes
    scored = Pass(responses, length, responses * share, responses * tokens)
    again = replace(scored, images=scored.images if encodes else 0)
    silent = replace(again, supervised=0)
    own = size if getattr(arguments, "sft_coef", 0) else 0  # the rows' own responses
    trained = Pass(size + own, length, (size + own) * share, size * tokens + own * assumed.answer_tokens)
    critic = None if method.critic is None else silent
    asks = getattr(arguments, "kl_coef", 0) or getattr(arguments, "beta", 0) or arguments.max_kl is not None
    models = len(_reward_models(config))
    rollouts = Rollouts(
        responses,
        size * plan.batches,
        plan,
        prompt,
        tokens,
        scored,
        critic,
        None if critic is None else replace(trained, supervised=0, images=trained.images if encodes else 0),
        silent,
        models,
        1 + bool(asks) + (critic is not None) + models,
    )
    return Step(size, image, trained, again if asks else None, 0.0), rollouts


def _reward_models(config: RunConfig) -> list[RewardSettings]:
    """The rewards that are models, then the cost if it is one."""
    settings = [*config.rewards.values(), *([config.cost] if config.cost is not None else [])]
    return [one for one in settings if one.reward == "model"]


def with_rollouts(
    spent: Flops, matrices: Sequence[Matrix], step: Step, rollouts: Rollouts, checkpointing: bool
) -> Flops:
    """The FLOPs of a step and of its rollouts.

    `spent` are those of the policy's training and of the reference model.
    """
    scored = forward_of(matrices, step, rollouts.scored)
    scored += rollouts.reward_models * forward_of(matrices, step, rollouts.reward)
    trained = 0.0
    if rollouts.critic is not None and rollouts.trained_critic is not None:
        scored += forward_of(matrices, step, rollouts.critic)
        # Instead of the output head, the critic has a head of one output, which is not counted.
        inner = [matrix for matrix in matrices if matrix.tower != HEAD]
        trained = flops(inner, replace(step, policy=rollouts.trained_critic, reference=None), checkpointing).total
    prefill, decoding = _prefill(matrices, step, rollouts), _decoding(matrices, rollouts)
    return replace(spent, prefill=prefill, decoding=decoding, scored=scored, critic=trained)


def _prefill(matrices: Sequence[Matrix], step: Step, rollouts: Rollouts) -> float:
    of = Pass(rollouts.responses, rollouts.prompt, rollouts.scored.images, 0)
    return forward_of(matrices, step, of)


def _decoding(matrices: Sequence[Matrix], rollouts: Rollouts) -> float:
    """FLOPs of the responses; token t attends to the prompt and t earlier tokens."""
    tokens = rollouts.tokens
    seen = tokens * rollouts.prompt + tokens * (tokens - 1) / 2
    each = sum(
        2.0 * matrix.weights * tokens + 4.0 * matrix.attention * seen for matrix in matrices if _is_decoded(matrix)
    )
    return rollouts.responses * each


def _is_decoded(matrix: Matrix) -> bool:
    return matrix.tower in ("language_model", HEAD)


def decoding_seconds(
    it: Skeleton,
    matrices: Sequence[Matrix],
    config: RunConfig,
    rollouts: Rollouts,
    gpus: int,
    at_once: int,
    bandwidth: float,
) -> float:
    """Seconds of decoding for one optimizer step; a GPU reads `bandwidth` bytes in a second."""
    weights = sum(matrix.weights * matrix_bytes(it, config, matrix) for matrix in matrices if _is_decoded(matrix))
    each = math.ceil(rollouts.round / gpus)
    rounds, size = math.ceil(each / at_once), min(at_once, each)
    read = weights + size * _cached(it, matrices) * (rollouts.prompt + rollouts.tokens / 2)
    return rounds * rollouts.tokens * read / bandwidth / rollouts.plan.steps


def _cached(it: Skeleton, matrices: Sequence[Matrix]) -> int:
    """Bytes of the keys and values of one position."""
    own = (matrix for matrix in matrices if matrix.tower == "language_model" and not matrix.adapter)
    kept = [matrix for matrix in own if matrix.name.removesuffix(".base_layer").endswith(("k_proj", "v_proj"))]
    return it.model.dtype.itemsize * sum(matrix.outputs for matrix in kept)


def cache_bytes(it: Skeleton, matrices: Sequence[Matrix], rollouts: Rollouts, at_once: int) -> float:
    """Bytes of the keys and values of the responses that one GPU samples at once."""
    return at_once * _cached(it, matrices) * float(rollouts.prompt + rollouts.tokens)


def _reward_adapters(of: Held, config: RunConfig, optimizer: str, configs: str | None) -> list[Held]:
    """The adapter of each reward model: its recipe's, else the policy's. Raises UserError."""
    found: dict[str | None, Held] = {None: of}
    model = config.model.name if config.model.name in available("models") else str(config.model.path)
    recipes = [one.recipe if one.path is None else None for one in _reward_models(config)]
    for recipe in dict.fromkeys(recipes):
        if recipe is not None:
            composed = compose_run([f"recipe={recipe}", f"model={model}"])
            found[recipe] = held(skeleton(composed, True, configs), composed.config, optimizer)
    return [found[recipe] for recipe in recipes]


def held_with_rollouts(
    of: Held, rollouts: Rollouts, config: RunConfig, width: int, optimizer: str, configs: str | None
) -> Held:
    """Memory with all adapters on one base: a trained critic, and frozen reward models.

    A critic begins as a copy of the first reward model, or with a cost or without a reward model, as
    an adapter like the policy's. `width`: the model's hidden size, the inputs of a scalar head, whose
    weights are float32. Raises UserError.
    """
    adapters = _reward_adapters(of, config, optimizer, configs)
    weights = of.weights + sum(one.gradients + FLOAT32 * width for one in adapters)
    if rollouts.critic is None:
        return replace(of, weights=weights)
    critic = adapters[0] if config.cost is None and adapters else of
    head = width * (1 if config.cost is None else 2)
    per_byte, per_weight = of.states / of.gradients, of.divided / of.trained
    size, trained = critic.gradients + FLOAT32 * head, critic.trained + head
    return replace(
        of,
        weights=weights + size,
        gradients=of.gradients + size,
        states=of.states + size * per_byte,
        divided=of.divided + trained * per_weight,
        trained=of.trained + trained,
    )


def with_critic(active: Activations) -> Activations:
    """Activations of a policy and a critic: both graphs exist until the backward pass."""
    doubled = {name: 2 * getattr(active, name) for name in ("kept", "layers", "copies", "outside")}
    return replace(active, **doubled)


def in_memory(of: Held, rollouts: Rollouts) -> tuple[float, float]:
    """-> bytes of weights, gradients and optimizer states (on one base, on a base for each model)."""
    shared = of.weights + of.gradients + of.states
    return shared, shared + (rollouts.models - 1) * of.base
