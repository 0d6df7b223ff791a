"""`dry_run=true`: print a run's settings and their origins, its data, and one row as tokens."""

from __future__ import annotations

import os
import tempfile
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from align.answering.stored import foreseen
from align.batches.rendered import Rendered
from align.config.merge import Composed
from align.config.origin import DEFAULT
from align.config.registry import METHODS, resolve
from align.config.values import flatten, to_dict
from align.console import quiet_libraries
from align.evaluation.curve import point_steps
from align.evaluation.selection import refuse_overlap_with_benchmarks
from align.methods.arguments import shown
from align.methods.distributed import machine_defaults
from align.methods.sampler import steps
from align.models.loading import parameters_per_tower, tower_line
from align.models.quantization import count
from align.run_folder import RunFolder, run_folder
from align.training.build import build_run
from align.training.needed_runs import found_only, with_needed_runs
from align.training.prepare import checked_data, refuse_settings


def show(composed: Composed) -> None:
    """Print configuration, data, parameters and one row; train nothing.

    Raises the same UserError as the run.
    """
    quiet_libraries()
    # Only the first process of a launch prints.
    console = Console(soft_wrap=True, quiet=int(os.environ.get("RANK", 0)) > 0)
    every = [(key, _typed(value), str(composed.origin(key))) for key, value in flatten(to_dict(composed.config))]
    settings = [setting for setting in every if setting[2] != DEFAULT.label]
    widths = [max(len(setting[i]) for setting in settings if len(setting[i]) < 50) for i in range(2)]
    for key, value, origin in settings:
        console.print(f"{key:<{widths[0]}}  {value:<{widths[1]}}  # {origin}", markup=False, highlight=False)
    console.print(f"{len(every) - len(settings)} other settings have their defaults: align train --help all")
    run = run_folder(composed.config)
    refuse_settings(composed, run)
    needed: list[str] = []
    with_needed_runs(composed, run, found_only(needed))
    data = checked_data(composed, run, foreseen(composed.config))
    data.facts += refuse_overlap_with_benchmarks(composed.config.evaluate, data.records())
    with tempfile.TemporaryDirectory() as nowhere:  # the trainer creates its folder, which is deleted again
        built = build_run(composed, data, RunFolder(Path(nowhere)))
    trainer = built.trainer
    console.print(f"\nRun folder: {run.path}")
    for line in needed:
        console.print(escape(line))
    console.print("Data: " + ", ".join(f"{name} {count} rows" for name, count in data.parts.items()))
    for fact in [*data.facts, *trainer.order.facts()]:
        console.print(escape(fact))
    console.print(tower_line(parameters_per_tower(trainer.model, built.family)))
    args = trainer.args
    console.print(
        f"Steps: {steps(trainer.order, args)}, each {composed.config.global_batch_size} rows = {args.world_size} "
        f"processes x {args.per_device_train_batch_size} rows x {args.gradient_accumulation_steps} accumulated"
    )
    console.print(
        "Training: " + ", ".join(_with_origin(composed, key, value) for key, value in shown(args).items()),
        highlight=False,
    )
    if every := composed.config.evaluate.every_steps:
        kept = point_steps(every, steps(trainer.order, args))
        console.print(
            f"Curve: the weights of {len(kept)} steps are kept (evaluate.every_steps={every}), {_saved(trainer.model)} "
            "each"
        )
    row = data.rows[0]
    samples = resolve("method", composed.config.method, METHODS).rewarded
    what = "the policy samples what follows" if samples else "the loss is on the text in [[ ]]"
    console.print(f"\nRow {row.id} as the model reads it; {what}:")
    shown_row = trainer.data_collator.render(row) or {"prompt": trainer.data_collator.renderer.render(row)}
    for field, rendered in shown_row.items():
        console.print(f"{field}: {mark_supervised(rendered, trainer.processing_class.tokenizer)}")


def _typed(value: Any) -> str:
    """A value as it is typed in an argument."""
    if isinstance(value, list):
        return ",".join(map(_typed, value))
    return {True: "true", False: "false", None: "null"}[value] if isinstance(value, bool | None) else str(value)


def _with_origin(composed: Composed, key: str, value: Any) -> str:
    origin = composed.origin(f"train.{key}")
    default = "this machine" if key in machine_defaults() else "trl"
    return escape(f"{key} {value} ({default if origin == DEFAULT else origin})")


def _saved(model: Any) -> str:
    """Size of the weights on disk. With an adapter, only the trained weights are saved."""
    adapter = hasattr(model, "peft_config")
    sizes = [count(p) * p.element_size() for p in model.parameters() if p.requires_grad or not adapter]
    return f"{sum(sizes) / 2**20:,.1f} MiB"


def mark_supervised(rendered: Rendered, tokenizer: Any) -> str:
    """The tokens of a row, its supervised tokens in [[ ]].

    A token that repeats (an image) is written as `x n`.
    """
    learned = rendered.learned or (False,) * len(rendered.prompt_ids)
    shown = ""
    for taken, run in groupby(zip(learned, rendered.prompt_ids, strict=True), key=itemgetter(0)):
        text = _written([token for _, token in run], tokenizer)
        shown += _marked(text) + " " if taken else escape(text)
    return f"{shown}{_marked(_written(rendered.answer_ids, tokenizer))}".strip()


def _marked(text: str) -> str:
    return f"[bold green]\\[\\[{escape(text)}]][/]"


def _written(ids: list[int], tokenizer: Any) -> str:
    text, readable = "", []
    for token, repeats in ((token, len(list(same))) for token, same in groupby(ids)):
        if repeats <= 3:
            readable += [token] * repeats
            continue
        text += f"{tokenizer.decode(readable)} {tokenizer.convert_ids_to_tokens(token)} x {repeats} "
        readable = []
    return text + str(tokenizer.decode(readable))
