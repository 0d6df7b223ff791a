"""`align compare`: every arm trained and evaluated, then the tables, the figures and the numbers that answer the question.

Runs that are finished are reused; a killed comparison goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.config import Composed, compose, compose_run, fingerprint, flatten, to_dict
from align.data.assembly import training_data
from align.errors import UserError
from align.files import write_json, write_text
from align.generation.stored import asking
from align.report.collect import combine, row_of
from align.report.comparisons import compare_arms, conclusions
from align.report.comparisons import markdown as comparison_table
from align.report.controlled import Ground, ground, ground_of, permitted, refuse_uncontrolled
from align.report.tables import markdown, print_table
from align.run_folder import RunFolder
from align.settings import CompareConfig, EvalConfig

SCHEMA = 1
TRACKS = {
    "paper": tuple(
        f"{view}_{method}" for view in ("t", "mm") for method in ("sft", "dpo", "unlearning", "safe_unlearning")
    ),
    "controlled": tuple(
        f"controlled/{arm}" for arm in ("text_leak", "image_leak", "image_free", "caption_free", "shuffled_leak")
    ),
}
CAVEAT = (
    "The miniature is a mechanism in a jar: it shows how the comparison works, not how safe any model is for people."
)


def main(arguments: Sequence[str]) -> int:
    """Train, evaluate, print and write everything. Raises UserError."""
    from align.screen import progress, quiet_libraries

    begun = time.monotonic()
    config: CompareConfig = compose(CompareConfig, arguments).config
    if config.checkpoint and len(config.model) > 1:
        raise UserError(f"checkpoint.{next(iter(config.checkpoint))}=: a checkpoint is of one model; give one model=")
    cells = {model: _cells(config, model) for model in config.model}
    _refuse_one_name_for_two_models(cells)
    for arms in cells.values():
        _refuse_uncontrolled_plans(arms)
    quiet_libraries()
    folder = Path(config.output_dir)
    untrained, runs, used = [], [], []
    with progress() as report:
        for arms in cells.values():
            untrained += [_untrained(evaluation, report) for evaluation in _references(config, arms[0], folder)]
            trained = [_arm(cell, report) for cell in arms]
            used += _refuse_uncontrolled_runs(trained)
            runs += trained
    rows, (comparisons, notes) = [row_of(run) for run in runs], compare_arms(runs)
    tracks = list(dict.fromkeys(row["track"] for row in rows))
    unaligned = [row_of(run) | {"track": track} for track in tracks for run in untrained]
    # A defence or somebody's checkpoint says nothing of the carrier of harm, which is what the controlled track is about.
    unaligned = [row for row in unaligned if row["track"] == "paper" or row["name"] == "vanilla"]
    arms_over_seeds = [row | {"seed": str(row["seed"])} for row in unaligned] + combine(runs)
    values = {"schema": SCHEMA, "seconds": round(time.monotonic() - begun, 1), "rows": unaligned + rows}
    notes += [f"{run.path}: {run.manifest()['stopped']}" for run in runs if "stopped" in run.manifest()]
    values |= {"arms": arms_over_seeds, "comparisons": comparisons, "notes": [*used, *notes]}
    write_json(folder / "comparison.json", values)
    miniature = any(cell.config.suite == "miniature" for arms in cells.values() for cell in arms)
    caveats = [CAVEAT] if miniature else []
    for track in tracks:
        _show_track(track, arms_over_seeds, comparisons, folder, [*(used if track == "controlled" else []), *caveats])
    print("\n".join(notes) + "\n" * bool(notes), end="")
    files = ", ".join(f"{track}.{ending}" for track in tracks for ending in ("md", "png"))
    print(f"Written to {folder}: comparison.json, {files}; {time.monotonic() - begun:.0f} s")
    return 0


def _cells(config: CompareConfig, model: str) -> list[Composed]:
    unknown = [track for track in config.track if track not in TRACKS]
    if unknown:
        raise UserError(f"track={unknown[0]}: expected {' or '.join(TRACKS)}")
    recipes = config.recipe or [recipe for track in config.track for recipe in TRACKS[track]]
    names = [Path(recipe).stem for recipe in dict.fromkeys(recipes)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(
            f"recipe={','.join(recipes)}: two recipes are called {twice!r}, and tables could not tell them apart"
        )
    return [
        _compose(config, model, recipe, method, seed)
        for recipe in dict.fromkeys(recipes)
        for method in _methods(config, model, recipe)
        for seed in dict.fromkeys(config.seed)
    ]


def _methods(config: CompareConfig, model: str, recipe: str) -> list[str | None]:
    """The methods that a recipe is trained with: its own (None), or in the controlled track those that were asked for."""
    track = compose_run([f"recipe={recipe}", f"model={model}"]).config.track
    return list(dict.fromkeys(config.method)) if track == "controlled" else [None]


def _refuse_one_name_for_two_models(cells: dict[str, list[Composed]]) -> None:
    names: dict[str, str] = {}
    for model, arms in cells.items():
        name = arms[0].config.model.name
        if name in names:
            raise UserError(
                f"model={names[name]},{model}: both are called {name!r}; give one a model.name in a model file"
            )
        names[name] = model


def _compose(config: CompareConfig, model: str, recipe: str, method: str | None, seed: int) -> Composed:
    overrides = [f"{key}={'null' if value is None else value}" for key, value in flatten(config.override)]
    overrides += [f"method={method}"] if method else []
    composed = compose_run([f"recipe={recipe}", f"model={model}", f"seed={seed}", *overrides])
    name = f"{recipe}-seed{seed}-{fingerprint(composed.config)}".replace("/", "-")
    composed.config.output_dir = str(Path(config.output_dir, composed.config.model.name.replace("/", "-"), name))
    return composed


def _refuse_uncontrolled_plans(cells: Sequence[Composed]) -> None:
    """Before anything is trained, by settings and rows: the arms of the controlled track of each method, under their first seed."""
    configs = [cell.config for cell in cells if cell.config.track == "controlled"]
    for method in dict.fromkeys(config.method for config in configs):
        arms = [config for config in configs if (config.method, config.seed) == (method, configs[0].seed)]
        refuse_uncontrolled([ground(arm.recipe, to_dict(arm), training_data(arm, asking(arm)).plan()) for arm in arms])


def _refuse_uncontrolled_runs(runs: Sequence[RunFolder]) -> list[str]:
    """After training, by what the runs of each method and seed recorded. What is permitted and used is returned."""
    groups: dict[tuple[str, int], list[Ground]] = {}
    for run in runs:
        manifest = run.manifest()
        if manifest["track"] == "controlled":
            groups.setdefault((manifest["method"], manifest["seed"]), []).append(ground_of(run))
    for arms in groups.values():
        refuse_uncontrolled(arms)
    return list(dict.fromkeys(line for arms in groups.values() for line in permitted(arms)))


def _references(config: CompareConfig, cell: Composed, folder: Path) -> list[EvalConfig]:
    """What the arms are seen beside: the model as it is, prompt-only defences, and checkpoints trained elsewhere."""
    model = cell.config.model
    rows: dict[str, dict[str, Any]] = {"vanilla": {}}
    rows |= {name.rpartition(":")[2]: {"defence": name} for name in config.defence if "paper" in config.track}
    rows |= {name: {"checkpoint": path} for name, path in config.checkpoint.items()}
    return [
        EvalConfig(
            **vars(cell.config.evaluate) | special,
            model=model,
            name=name,
            output_dir=str(folder / model.name.replace("/", "-") / name),
        )
        for name, special in rows.items()
    ]


def _untrained(evaluation: EvalConfig, report: Any) -> RunFolder:
    """A row without training of ours, evaluated as every arm is."""
    from align.commands.evaluate import run_evaluation

    assert evaluation.model is not None
    return run_evaluation(evaluation, _named(report, f"{evaluation.model.name} {evaluation.name}"))[0]


def _arm(cell: Composed, report: Any) -> RunFolder:
    """One recipe on one model with one seed: trained, then evaluated in this process."""
    from align.commands.evaluate import run_evaluation
    from align.methods.callbacks import StepReport
    from align.methods.memory import reset_peak_memory
    from align.train import train

    config = cell.config
    name = f"{config.model.name} {config.recipe} {config.method} seed {config.seed}"
    reset_peak_memory()
    steps = StepReport(lambda done, total: report(f"{name} training", done, total))
    run = train(cell, callbacks=[steps], report=_named(report, name))
    return run_evaluation(EvalConfig(**vars(config.evaluate), run=str(run.path)), _named(report, name))[0]


def _named(report: Any, name: str) -> Any:
    return lambda what, done, total: report(f"{name} {what}", done, total)


def _show_track(
    track: str, rows: Sequence[dict[str, Any]], comparisons: Sequence[dict[str, Any]], folder: Path, caveats: list[str]
) -> None:
    """One track's table, figure, differences and conclusions: on the terminal and as <track>.md and <track>.png."""
    from align.report.figure import draw_comparison

    rows = [row for row in rows if row["track"] == track]
    comparisons = [comparison for comparison in comparisons if comparison["track"] == track]
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = [row for row in rows if row["model"] == model]
        seeds = ", ".join(dict.fromkeys(row["seed"] for row in of_model if row["method"]))
        print_table(of_model, f"{track.capitalize()} track, {model}, seed {seeds}")
    found = [*conclusions(comparisons), *caveats]
    print("\n".join(found) + "\n")
    write_text(
        folder / f"{track}.md", "\n".join([markdown(rows), comparison_table(comparisons), "\n\n".join(found), ""])
    )
    draw_comparison(rows, folder / f"{track}.png")
