"""One training run: check, build, train to the end or until a signal, record."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from align.answering.stored import asking
from align.config.merge import Composed
from align.console import Report, say
from align.data.assembly import TrainingData
from align.errors import UserError
from align.evaluation.selection import refuse_overlap_with_benchmarks
from align.files import read_jsonl, share, write_text
from align.interruption import NOTICE, Interrupted
from align.run_folder import RunFolder, run_folder, step_of
from align.run_lock import alone
from align.tools.publish.card import write_card
from align.tools.publish.wandb_log import tracked
from align.training.needed_runs import trained_first, with_needed_runs

LOG = logging.getLogger(__name__)

if TYPE_CHECKING:  # it imports torch, and an error in a key should be reported before that
    from align.training.build import BuiltRun


def train(composed: Composed, callbacks: Sequence[Any] = (), report: Report | None = None) -> RunFolder:
    """Train a run to its end; a finished run is not trained again. Raises UserError.

    A caller that shows progress itself passes `report` and callbacks that call it. Only facts are
    printed then.
    """
    from align.training.prepare import (  # it imports torch, and an error in a key should be reported before that
        check_rewards,
        checked_data,
        refuse_settings,
    )

    config, run = composed.config, run_folder(composed.config)
    refuse_settings(composed, run)
    with_needed_runs(composed, run, trained_first(train, callbacks, report))
    rewards = check_rewards(config)
    data = checked_data(composed, run, asking(config, report), report)
    with alone(run.path):
        _train(composed, data, run, rewards, callbacks, report)
    return run


def _train(
    composed: Composed,
    data: TrainingData,
    run: RunFolder,
    rewards: dict[str, str],
    callbacks: Sequence[Any],
    report: Report | None,
) -> None:
    from align.models.loading import base_of, load_without_weights, tower_line

    config = composed.config
    rendering = load_without_weights(config.model).renderer.identity
    run.check(config, data.manifest(), base_of(config.model), rendering)
    _refuse_other_rewards(run, rewards)
    alike = refuse_overlap_with_benchmarks(config.evaluate, data.records())
    if run.finished():
        if report is None:
            say(f"{run.path} is already trained")
        run.write_config(config)  # the evaluation settings may have changed
        write_card(run)  # the run may have been killed before it wrote the card
        return
    # These import trl, and an error in a key should be reported before that.
    from align.methods.distributed import refuse_other_launch
    from align.training.build import build_run

    built = build_run(composed, data, run, callbacks)
    trainer = built.trainer
    last = run.last_checkpoint() if config.resume else None
    if last:
        refuse_other_launch(run.manifest(), trainer.accelerator)
    _refuse_different_data(data)
    if trainer.accelerator.is_main_process and config.resume:
        for line in run.set_aside_damaged():
            say(line)
    if trainer.accelerator.is_main_process and not config.resume:
        # Otherwise the checkpoints and seconds of an earlier attempt would count as this run's.
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        run.manifest_file.unlink(missing_ok=True)
    if report is None:
        say(f"Run folder: {run.path}" + (f", resumed from step {step_of(last)}" if last else ""))
    _start(built, composed, data, run, rewards, [*alike], rendering)
    if report is None and trainer.accelerator.is_main_process:
        say(tower_line(run.manifest()["parameters"]))
    with tracked(run, trainer.args) if trainer.accelerator.is_main_process else contextlib.nullcontext():
        _until_finished_or_asked(built, run, str(last) if last else None)
        _finish(trainer, run)
    if report is None and trainer.accelerator.is_main_process:
        done = run.manifest()
        say(f"Trained in {done['seconds']:.0f} s, peak memory {done['peak_memory_mib']:,} MiB. Weights: {run.weights}")


def _refuse_different_data(data: TrainingData) -> None:
    """Raises UserError unless all processes have the same data.

    Each process reads it, perhaps on another machine.
    """
    from accelerate.utils import gather_object

    found = gather_object([data.fingerprint])
    if len(set(found)) > 1:
        raise UserError(
            f"the processes have different training data (fingerprints {', '.join(found)}): files or generated "
            "answers differ between machines; put the files and XDG_CACHE_HOME on a file system that all machines "
            "share"
        )


def _refuse_other_rewards(run: RunFolder, rewards: dict[str, str]) -> None:
    """Raises UserError if a reward model is not the one that the run began with, also if it is finished."""
    before = run.manifest().get("rewards", {}) if run.manifest_file.is_file() else {}
    if other := [name for name, weights in rewards.items() if before.get(name, weights) != weights]:
        raise UserError(
            f"{run.path}: the reward model of rewards.{other[0]} has other weights than when this run began; give another "
            "output_dir=, restore it, or remove this folder"
        )


def _start(
    built: BuiltRun,
    composed: Composed,
    data: TrainingData,
    run: RunFolder,
    rewards: dict[str, str],
    alike: Sequence[str],
    rendering: str,
) -> None:
    from align.methods.arguments import describe
    from align.models.loading import parameters_per_tower

    trainer = built.trainer
    if not trainer.accelerator.is_main_process:
        return
    for fact in [*data.facts, *alike, *trainer.order.facts(), *built.layout_facts]:
        LOG.info(fact)
    towers = parameters_per_tower(trainer.model, built.family)
    run.begin(composed.config, data.manifest(), built.base, rendering)
    write_text(run.rows_file, "".join(json.dumps(record) + "\n" for record in data.records()))
    run.record(
        parameters=towers,
        trainable_parameters=sum(tower["trainable"] for tower in towers.values()),
        world_size=trainer.accelerator.num_processes,
        distributed_type=str(trainer.accelerator.distributed_type.value),
        train=describe(trainer.args),
        order_facts=trainer.order.facts(),
        reference=built.reference,
        **({"rewards": rewards} if rewards else {}),
    )


def _until_finished_or_asked(built: BuiltRun, run: RunFolder, checkpoint: str | None) -> None:
    """Train. Raises Interrupted if a signal stopped the run.

    If the last checkpoint could not be saved then, the checkpoint before it remains.
    """
    trainer = built.trainer
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except (OSError, RuntimeError, SafetensorError) as error:  # what Python, torch and safetensors raise on a full disk
        NOTICE.deferred = False
        if not built.preemption.asked:
            raise
        LOG.warning(f"the last checkpoint could not be written: {error}; the previous checkpoint remains")
    if built.preemption.asked:
        if trainer.accelerator.is_main_process:
            run.record(status="interrupted")
        raise Interrupted(f"interrupted at step {trainer.state.global_step} of {trainer.state.max_steps}")


def _finish(trainer: Any, run: RunFolder) -> None:
    from align.training.memory import peak_memory_mib
    from align.training.reward_accuracy import accuracy_of

    trainer.save_model(str(run.weights))
    accuracy = accuracy_of(trainer.held_out()) if hasattr(trainer, "held_out") else None
    if trainer.accelerator.is_main_process:
        share(run.weights)
        run.record(
            status="finished",
            steps=trainer.state.global_step,
            supervised_tokens=sum(line["supervised_tokens"] for line in read_jsonl(run.steps_file)),
            peak_memory_mib=peak_memory_mib(),
            **({} if accuracy is None else {"held_out": accuracy}),
            finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        )
        write_card(run)  # replaces the default card that peft writes
    trainer.accelerator.wait_for_everyone()
