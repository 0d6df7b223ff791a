"""`align eval`: evaluate a run, any checkpoint, or a base model on benchmarks."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.answering.endpoint import Endpoint
from align.answering.model import Model
from align.config.compose import compose_eval
from align.console import Display
from align.errors import UserError
from align.evaluation.curve import Results, evaluate_curve, lacking
from align.evaluation.defended import defence_of
from align.evaluation.evaluation import evaluate
from align.evaluation.forecast import forecast
from align.evaluation.judges.stored_settings import forget_stored
from align.evaluation.lmms.measure import External
from align.evaluation.selection import refuse_overlap_with_benchmarks
from align.files import read_jsonl, refuse_other
from align.run_folder import SCHEMA, RunFolder, versions
from align.settings import EvalConfig, ModelSettings
from align.tools.publish.card import shown_as, write_card

if TYPE_CHECKING:  # it imports torch, and an error in a key should be reported before that
    from align.rewards.scoring import RewardModel


def main(arguments: Sequence[str]) -> int:
    """Evaluate and print the tables, and the curve of a run that has one. Raises UserError.

    Returns 1 where a rate is withheld, 130 where the user interrupts.
    """
    from align.console import progress
    from align.report.curve import print_curve
    from align.tools.publish.wandb_log import log_results

    composed = compose_eval(arguments)
    config: EvalConfig = composed.config
    if config.run is not None:
        forget_stored(composed)
    _refuse_launcher()
    _refuse_reward_model(config)
    if config.dry_run:
        folder = RunFolder(Path(config.run)) if config.run is not None else _other_folder(config)
        for line in forecast(config, _results_folder(folder, config).evaluation):
            print(line)
        return 0
    points: dict[int, Results] = {}
    reward = _reward_model(config)
    try:
        with progress() as display:
            run, results = run_evaluation(config, display, reward)
        if results and config.validation:
            _show(run, "Validation", results)
        elif results or not config.benchmark:
            _show(run, "Evaluation")
        else:
            print("Nothing was judged (judge=none). The same command with a judge reuses the stored responses.")
        for line in reward.lines if reward is not None else ():
            print(line)
        print(f"Details: {_results_folder(run, config).evaluation}")
        with progress() as display:
            points = run_curve(run, results, config, display)
    except KeyboardInterrupt:
        print("Interrupted. Every response and verdict so far is stored. To resume, give the same command:")
        print(f"  {shlex.join(['align', 'eval', *arguments])}")
        return 130
    if points and results:
        print_curve(points)
        print(f"Details: {run.curve_file}")
    if not config.validation:
        log_results(run)
    withheld = [
        judged["rate"] is None
        for found in (results, *points.values())
        for result in found.values()
        for judged in (result, *result.get("other_judges", []))
    ]
    return 1 if any(withheld) else 0


def _refuse_reward_model(config: EvalConfig) -> None:
    from align.models.scalar_head import FILE as HEAD_FILE

    weights = RunFolder(Path(config.run)).weights if config.run else Path(config.checkpoint or "")
    if (config.run or config.checkpoint) and (weights / HEAD_FILE).is_file():
        given = f"run={config.run}" if config.run else f"checkpoint={config.checkpoint}"
        model = config.run or config.checkpoint
        raise UserError(
            f"{given}: this is a reward model, which scores responses and writes none. Its accuracy is in the manifest "
            f"of its run, and in `align table`. To score the responses of another model: align eval reward={model} "
            "run=<run> benchmark=<names>"
        )


def _show(run: RunFolder, what: str, instead: Results | None = None) -> None:
    """Print the tables of one run, or of other results instead of its own."""
    from align.report.arms import Arm
    from align.report.run_results import Evaluated, row_of
    from align.report.tables.all_tables import tables_of
    from align.report.tables.terminal import print_tables

    row = row_of(run)
    arm = Arm(row, [Evaluated(run)]) if instead is None else Arm(row | {"results": instead, "external": {}}, [])
    print(f"\n{what} of {row['model']}")
    print_tables(tables_of([arm], [], ("rates", "divided", "thoughts", "defences", "measured")))


def _refuse_launcher() -> None:
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(
            "align eval was started by a launcher, but it starts its own processes, one for each GPU of the machine. "
            "Give the command without a launcher; generation.num_processes= sets another number of processes."
        )


def _reward_model(config: EvalConfig) -> RewardModel | None:
    if config.reward is None:
        return None
    if not config.benchmark:
        raise UserError(f"reward={config.reward}: it scores responses to benchmarks. Give benchmark=<names>")
    from align.rewards.scoring import RewardModel

    return RewardModel(config.reward, config.generation.batch_size)


def run_evaluation(
    config: EvalConfig, display: Display | None = None, reward: RewardModel | None = None
) -> tuple[RunFolder, dict[str, dict[str, Any]]]:
    """Evaluate the model of a configuration -> (its folder, {benchmark: result}).

    A reward model scores the responses too. Raises UserError.
    """
    if config.run is not None and config.defence:
        raise UserError(
            f"defence={config.defence}: a run folder stores results of the run without a defence. Instead of run=, "
            f"give checkpoint={config.run}/checkpoint output_dir=<folder>"
        )
    if config.run is not None:
        # A link may change while this runs (align/sweep/choosing.py): responses belong to its
        # target now.
        config = replace(config, run=str(Path(config.run).resolve()))
        run = RunFolder(Path(str(config.run)))
        model = _model_of_run(run, config)
        refuse_overlap_with_benchmarks(config, read_jsonl(run.rows_file))
    else:
        run = _other_folder(config)
        model = _other_model(config)
        _check_model(run, model, config)
    display = display or Display()
    into = _results_folder(run, config).evaluation
    external = _external(model, config, into, display)
    results = evaluate(model, config, into, display, reward) if config.benchmark or not external else {}
    if external:
        external.measure(display)
    if config.run is not None and not config.validation:
        write_card(run)
    return run, results


def _results_folder(run: RunFolder, config: EvalConfig) -> RunFolder:
    if config.validation and config.run is None:
        raise UserError("validation=true applies only to a training run. Give run=<run folder>")
    return run.validation if config.validation else run


def _external(model: Model, config: EvalConfig, folder: Path, display: Display) -> External | None:
    """The lmms_eval tasks; none with a defence, which lmms_eval would not apply."""
    if config.lmms_eval.tasks and config.defence:
        display.say(
            f"lmms_eval: skipped with defence={config.defence}, because lmms_eval asks the model without the defence"
        )
    return External(model, config, folder) if config.lmms_eval.tasks and not config.defence else None


def run_curve(run: RunFolder, final: Results, config: EvalConfig, display: Display | None = None) -> dict[int, Results]:
    """Evaluate the curve of a run that has one -> {step: results}, with the final step.

    Raises UserError.
    """
    if config.run is None or not config.curve or config.validation:
        return {}
    if line := lacking(run, config.every_steps):
        print(line)
    return evaluate_curve(run, final, config, lambda weights: _model_of_run(run, config, weights), display)


def _model_of_run(run: RunFolder, config: EvalConfig, weights: Path | None = None) -> Model:
    """A run's model with its final weights, or with the weights of an earlier step."""
    from align.answering.engines import model_on_this_machine
    from align.models.loading import ModelSource, checkpoint

    stored, folder = run.config(), str(weights or run.weights)
    if stored.lora:
        run.refuse_replaced_base()
    source = ModelSource(stored.model, folder) if stored.lora else checkpoint(folder, stored.model)
    return model_on_this_machine(source, config.generation)


def _other_model(config: EvalConfig) -> Model:
    """A model that was not trained here: at an endpoint, a checkpoint, or a base model."""
    if config.generation.base_url:
        return Endpoint(config.generation)
    from align.answering.engines import model_on_this_machine
    from align.models.loading import ModelSource, checkpoint

    if config.checkpoint:
        settings = _as_trained(config.checkpoint, config.model)
        return model_on_this_machine(checkpoint(config.checkpoint, settings), config.generation)
    return model_on_this_machine(ModelSource(config.model or ModelSettings()), config.generation)


def _as_trained(checkpoint: str, given: ModelSettings | None) -> ModelSettings | None:
    """Model settings of a checkpoint; if it belongs to a run, prompts and images as in that run.

    Raises UserError.
    """
    run = RunFolder(Path(checkpoint).absolute().parent)
    if not ((run.path / "config.yaml").is_file() and run.finished()):
        return given
    stored = run.config()
    if stored.lora:
        run.refuse_replaced_base()
    settings = given or ModelSettings(name=Path(checkpoint).name)
    taken = {key: value for key, value in shown_as(stored).items() if getattr(settings, key) is None}
    if taken:
        said = ", ".join(f"model.{key}={value}" for key, value in taken.items())
        print(f"Prompts and images are as in {run.path}: {said}", flush=True)
    return replace(settings, **taken)


def _other_folder(config: EvalConfig) -> RunFolder:
    if config.output_dir:
        return RunFolder(Path(config.output_dir))
    defence = f"-{config.defence.replace(':', '-')}" if config.defence else ""
    if config.checkpoint:
        digest = hashlib.sha256(str(Path(config.checkpoint).resolve()).encode()).hexdigest()[:8]
        return RunFolder(Path("runs", f"{Path(config.checkpoint).name}-{digest}{defence}"))
    name = str(config.generation.model or (config.model.name if config.model else "")).replace("/", "-")
    return RunFolder(Path("runs", f"{name}{defence or '-vanilla'}"))


def _check_model(run: RunFolder, model: Model, config: EvalConfig) -> None:
    """Write a manifest for a model that was not trained here.

    Raises UserError if the folder stores another model's responses.
    """
    name = config.model.name if config.model else config.generation.model or Path(str(config.checkpoint)).name
    identity = {
        "model": name,
        "base": model.base,
        "checkpoint": config.checkpoint,
        "weights": model.identity.get("weights"),
        "defence": config.defence,
        "seed": config.seed,
    }
    there = run.manifest()
    defence = defence_of(config)
    settings = defence.identity if defence else None
    if not there or there.get("defence_settings"):  # earlier versions did not store it
        identity["defence_settings"] = settings
    if there and there.get("method") is not None:
        raise UserError(f"{run.path} is the folder of a training run. Give another output_dir=.")
    refuse_other(run.path, "model", there, identity)
    run.record(
        schema=SCHEMA,
        status="finished",
        track="paper",
        recipe=config.name or config.defence or ("checkpoint" if config.checkpoint else "vanilla"),
        method=None,
        view=None,
        steps=0,
        trainable_parameters=0,
        seconds=0.0,
        peak_memory_mib=None,
        versions=versions(),
        **identity | {"defence_settings": settings},
    )
