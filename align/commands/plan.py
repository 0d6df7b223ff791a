"""`align plan`: estimate the cost of runs before anything is downloaded or trained."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from align.config.compose import compose, compose_run, each_run
from align.errors import UserError
from align.files import write_text
from align.settings import PlanSettings

SECTION = "plan."
FORMATS = ("md", "json")
WIDTH = 200
"""Width in characters of a table in a pipe or a log file, without a terminal."""


def main(arguments: Sequence[str]) -> int:
    """Estimate every recipe on every model, and print the estimates. Raises UserError."""
    assumed: PlanSettings = compose(
        PlanSettings, [a.removeprefix(SECTION) for a in arguments if a.startswith(SECTION)]
    ).config
    _check(assumed)
    # All configurations first: a typing error should not wait for torch.
    runs = [compose_run(words) for words in each_run([a for a in arguments if not a.startswith(SECTION)])]
    from align.console import quiet_libraries
    from align.planning.estimate import estimate

    quiet_libraries()
    found = []
    for run in runs:
        try:
            found.append(estimate(run, assumed))
        except UserError as error:
            raise UserError(f"recipe={run.config.recipe} model={run.config.model.name}: {error}") from error
    if assumed.format is None:
        _show(found, assumed)
        return 0
    record = {"schema": 1, "assumed": asdict(assumed), "runs": [one.record() for one in found]}
    text = json.dumps(record, indent=2) + "\n" if assumed.format == "json" else _markdown(found, assumed)
    if assumed.output:
        write_text(Path(assumed.output), text)
    else:
        sys.stdout.write(text)
    return 0


def _check(assumed: PlanSettings) -> None:
    if assumed.format not in (None, *FORMATS):
        raise UserError(
            f"plan.format={assumed.format}: expected one of {', '.join(FORMATS)}, or leave it out for the terminal"
        )
    if assumed.output and assumed.format is None:
        raise UserError(f"plan.output={assumed.output} needs plan.format=md or json")
    for name in ("prompt_tokens", "answer_tokens", "utilization", "decoding"):
        if not getattr(assumed, name) > 0:
            raise UserError(f"plan.{name}={getattr(assumed, name)}: expected more than 0")
    for name in ("utilization", "decoding"):
        if getattr(assumed, name) > 1:
            raise UserError(f"plan.{name}={getattr(assumed, name)}: expected a share of a GPU's peak, at most 1")
    if not assumed.gpus or min(assumed.gpus) < 1:
        raise UserError(f"plan.gpus={assumed.gpus}: expected numbers of GPUs, each at least 1")


def _header(found: Sequence[Any]) -> list[str]:
    gpus = [it.gpus for it in found[0].launched]
    on = "/".join(map(str, gpus))
    return [
        "model",
        "recipe",
        "trained",
        "steps",
        "PFLOP a step",
        f"GiB on {on} (LoRA: ddp, full: zero2)",
        "fits 80 GB with",
    ] + [f"hours on {on} {gpu}" for gpu in found[0].launched[0].hours]


def _cells(it: Any) -> list[str]:
    first = [launched.fits or "-" for launched in it.launched]
    memories = [f"{next(iter(launched.memory.values())).total / 2**30:.0f}" for launched in it.launched]
    hours = [" / ".join(_hours(launched.hours[gpu]) for launched in it.launched) for gpu in it.launched[0].hours]
    return [
        it.model,
        it.recipe,
        f"{it.trainable / 1e6:,.0f}M of {it.all / 1e6:,.0f}M",
        f"{it.steps:,}",
        f"{it.flops.total / 1e15:.3g}",
        " / ".join(memories),
        first[0] if len(set(first)) == 1 else " / ".join(first),
        *hours,
    ]


def _hours(hours: float) -> str:
    return f"{hours:.0f}" if hours >= 10 else f"{hours:.2g}"


def _notes(found: Sequence[Any], assumed: PlanSettings) -> list[str]:
    """Assumptions behind the numbers."""
    tokens: dict[int, list[str]] = {}
    for it in found:
        models = tokens.setdefault(it.step.image.tokens, [])
        if it.step.policy.images and it.model not in models:
            models.append(it.model)
    images = "; ".join(f"{', '.join(models)}: {number} tokens" for number, models in tokens.items() if models)
    shown = f", an image of {assumed.image} ({images})" if images else ""
    notes = [
        f"Assumptions: prompts of {assumed.prompt_tokens} tokens, responses of {assumed.answer_tokens}{shown}; "
        f"{assumed.utilization:.0%} of a GPU's peak (A100 312, H100 989 TFLOP/s); {assumed.reserve:g} GiB for CUDA and "
        "NCCL.",
        f"Fits: the first of ddp, zero2, zero3 (accelerate_configs/) that needs at most {assumed.memory:g} GiB, for "
        "each number of GPUs; - means that none fits.",
    ]
    if sampled := [it for it in found if it.rollouts is not None]:
        lengths = ", ".join(dict.fromkeys(str(it.rollouts.tokens) for it in sampled))
        notes.append(
            f"Sampled responses have train.max_completion_length tokens ({lengths}). Decoding is assumed to be "
            "memory-bound: for each token of a batch a GPU reads the language model's weights, and the keys and values "
            f"of the batch, at {assumed.decoding:.0%} of its bandwidth ({_bandwidths()}; plan.decoding). The training "
            "of reward models is not included: plan their recipes too."
        )
    if any(it.full for it in found):
        notes.append(
            "Full fine-tuning of 16-bit weights is rejected under ddp, which keeps no float32 copy of the weights; "
            "zero2 and zero3 do."
        )
    return notes


def _bandwidths() -> str:
    from align.planning.rollouts import BANDWIDTH

    return ", ".join(f"{gpu} {bandwidth / 1e12:.2f} TB/s" for gpu, bandwidth in BANDWIDTH.items())


def _markdown(found: Sequence[Any], assumed: PlanSettings) -> str:
    header = _header(found)
    lines = [header, ["---"] * len(header), *map(_cells, found)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n" + "\n".join(_notes(found, assumed)) + "\n"


def _show(found: Sequence[Any], assumed: PlanSettings) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    table = Table(*_header(found))
    for it in found:
        table.add_row(*_cells(it))
    console.print(table)
    if len(found) == 1:
        _show_parts(console, found[0])
    for note in _notes(found, assumed):
        console.print(note, highlight=False, soft_wrap=True)


def _show_parts(console: Any, it: Any) -> None:
    """Print memory by part, FLOPs by operation, parameters by tower."""
    from rich.table import Table

    from align.models.loading import tower_line
    from align.planning.memory import in_gib

    parts = Table("GPUs", "launch", *in_gib(next(iter(it.launched[0].memory.values()))), title="GiB of one GPU")
    for launched in it.launched:
        for launch, memory in launched.memory.items():
            parts.add_row(str(launched.gpus), launch, *(f"{size:.1f}" for size in in_gib(memory).values()))
    console.print(parts)
    console.print(tower_line(it.parameters), highlight=False, soft_wrap=True)
    step, of, spent = it.step, it.step.policy, it.flops
    console.print(
        f"A step: {step.rows} rows, {of.sequences:g} sequences of {of.length} tokens, {of.images:g} images of "
        f"{step.image.patches} patches and {step.image.tokens} tokens; {it.rows:,} rows, {it.steps:,} steps",
        highlight=False,
        soft_wrap=True,
    )
    shares = ", ".join(f"{name} {flops / spent.total:.0%}" for name, flops in asdict(spent).items() if flops)
    console.print(f"FLOPs of a step: {spent.total:.3g} ({shares})", highlight=False, soft_wrap=True)
    if it.rollouts is not None:
        _show_rollouts(console, it)


def _show_rollouts(console: Any, it: Any) -> None:
    """Print what a round samples, and the memory of several adapters on one base against that of several models."""
    of = it.rollouts
    console.print(
        f"A round: {of.round} responses of {of.tokens} tokens to prompts of {of.prompt} tokens, trained on in "
        f"{of.plan.steps} step{'s' * (of.plan.steps > 1)}; {of.reward_models} reward "
        f"model{'s' * (of.reward_models != 1)}{'' if of.critic is None else ', a critic'}",
        highlight=False,
        soft_wrap=True,
    )
    shared, separate = (size / 2**30 for size in it.in_memory)
    if of.models > 1:
        console.print(
            f"Weights, gradients and optimizer states: {shared:.1f} GiB with {of.models} models on one base; "
            f"{separate:.1f} GiB with a base and the same adapter for each (SPA-VL's script has four models: policy, "
            "critic, reward model, reference model)",
            highlight=False,
            soft_wrap=True,
        )
