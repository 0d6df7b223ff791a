"""Plan what `align compare` trains and evaluates.

Anything that cannot be trained, shown or compared is rejected before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.answering.stored import asking
from align.config.compose import compose_run
from align.config.files import available
from align.config.fingerprint import fingerprint
from align.config.merge import Composed
from align.config.origin import DEFAULT
from align.config.registry import DEFENCES, METHODS, REWARD_MODEL, resolve
from align.config.values import flatten, to_dict
from align.data.assembly import training_data
from align.errors import UserError
from align.evaluation.defended import defence_of, refuse_unread, short_name
from align.report.controlled import ground, refuse_uncontrolled
from align.run_folder import RunFolder, folder_within
from align.settings import CompareConfig, EvalConfig, RunConfig
from align.training.preflight import refuse_missing

TRACKS = {
    "paper": tuple(
        f"{view}_{method}" for view in ("t", "mm") for method in ("sft", "dpo", "unlearning", "safe_unlearning")
    ),
    "controlled": tuple(
        f"controlled/{arm}" for arm in ("text_leak", "image_leak", "image_free", "caption_free", "shuffled_leak")
    ),
}
VANILLA = "vanilla"
RESERVED = (VANILLA, *DEFENCES)
"""Names that tables treat as rows without training."""
CHOSEN_ELSEWHERE = {
    "method": "method=",
    "seed": "seed=",
    "recipe": "recipe=",
    "track": "track=",
    "output_dir": "output_dir=",
}
"""Settings that the comparison chooses for each run; one override would make all runs equal."""

Cells = dict[str, list[Composed]]
"""{model as typed: its runs}"""


def plan(given: Composed) -> tuple[Cells, dict[str, list[EvalConfig]]]:
    """Settings of a comparison -> (runs of each model, its rows without training).

    Raises UserError.
    """
    config: CompareConfig = given.config
    if config.checkpoint and len(config.model) > 1:
        raise UserError(
            f"checkpoint.{next(iter(config.checkpoint))}=: a checkpoint belongs to one model, but model= names "
            "several. Give one model=."
        )
    _refuse_overrides_of_choices(config)
    cells = {model: _cells(config, model) for model in config.model}
    _refuse_reward_models(cells)
    _refuse_one_name_for_two_models(cells)
    _refuse_method_without_effect(given, cells)
    references = {model: _references(config, arms) for model, arms in cells.items()}
    for arms in cells.values():
        for arm in arms:
            refuse_missing(arm.config)
        _refuse_impossible_settings(arms)
        _refuse_bad_rows(arms)
        _refuse_uncontrolled_plans(arms)
    return cells, references


def _refuse_overrides_of_choices(config: CompareConfig) -> None:
    for key, option in CHOSEN_ELSEWHERE.items():
        if key in config.override:
            what = " (controlled track only; in the paper track each recipe has its method)" if key == "method" else ""
            raise UserError(f"override.{key}=: override= is for settings that all runs share. Use {option}{what}")


def _cells(config: CompareConfig, model: str) -> list[Composed]:
    unknown = [track for track in config.track if track not in TRACKS]
    if unknown:
        raise UserError(f"track={unknown[0]}: expected {' or '.join(TRACKS)}")
    recipes = config.recipe or [recipe for track in config.track for recipe in TRACKS[track]]
    names = [Path(recipe).stem for recipe in dict.fromkeys(recipes)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(
            f"recipe={','.join(recipes)}: two recipes have the name {twice!r}, so tables cannot distinguish them. "
            "Rename the file of one recipe."
        )
    reserved = next((name for name in names if name in RESERVED), None)
    if reserved:
        raise UserError(
            f"recipe={','.join(recipes)}: {reserved!r} is reserved for a row without training. Rename the recipe's "
            "file."
        )
    return [
        _compose(config, model, recipe, method, seed)
        for recipe in dict.fromkeys(recipes)
        for method in _methods(config, model, recipe)
        for seed in dict.fromkeys(config.seed)
    ]


def _methods(config: CompareConfig, model: str, recipe: str) -> list[str | None]:
    """Methods to train a recipe with: its own (None); in the controlled track those in method=."""
    track = compose_run([f"recipe={recipe}", f"model={model}"]).config.track
    return list(dict.fromkeys(config.method)) if track == "controlled" else [None]


def _compose(config: CompareConfig, model: str, recipe: str, method: str | None, seed: int) -> Composed:
    overrides = [f"{key}={'null' if value is None else value}" for key, value in flatten(config.override)]
    overrides += [f"method={method}"] if method else []
    words = [f"recipe={recipe}", f"model={model}", f"seed={seed}", *([f"suite={config.suite}"] if config.suite else [])]
    composed = compose_run([*words, *overrides])
    if is_miniature(composed.config) and not any(key.startswith("train.save") for key, _ in flatten(config.override)):
        composed = compose_run([*words, *overrides, "train.save_strategy=no"])  # runs of seconds need no checkpoints
    run = composed.config
    run.output_dir = str(folder_within(config.output_dir, run.model.name, recipe, seed, fingerprint(run)))
    return composed


def is_miniature(run: RunConfig) -> bool:
    """Whether a run is of the miniature, by its data or its model: such runs take seconds."""
    tiny = run.model.path is None and str(run.model.build).startswith("align.miniature.")
    return tiny or run.suite == "miniature"


def _refuse_reward_models(cells: Cells) -> None:
    for cell in (cell for arms in cells.values() for cell in arms):
        if cell.config.method == REWARD_MODEL:
            recipe = cell.config.recipe
            raise UserError(
                f"recipe={recipe}: a reward model writes no responses, so it cannot be compared. Compare recipes that "
                f"learn from it, for example recipe=mm_ppo: it is trained first, and its accuracy is shown. To train "
                f"it alone: align train recipe={recipe} model={cell.config.model.name}"
            )


def _refuse_one_name_for_two_models(cells: Cells) -> None:
    names: dict[str, str] = {}
    for model, arms in cells.items():
        name = arms[0].config.model.name
        if name in names:
            raise UserError(
                f"model={names[name]},{model}: both models have the name {name!r}. Set another model.name in one model "
                "file."
            )
        names[name] = model


def _tracks(cells: Sequence[Composed]) -> set[str]:
    return {cell.config.track for cell in cells}


def _refuse_method_without_effect(given: Composed, cells: Cells) -> None:
    asked_for = given.origin("method") != DEFAULT
    if asked_for and not any("controlled" in _tracks(arms) for arms in cells.values()):
        raise UserError(
            f"method={','.join(given.config.method)}: method= applies to arms of the controlled track, and no arm here "
            "is of that track. In the paper track each recipe has its own method: choose recipes, for example "
            "recipe=t_dpo,mm_dpo"
        )


def _refuse_impossible_settings(cells: Sequence[Composed]) -> None:
    """Resolve every method and its arguments, to find errors before hours of training."""
    from align.methods.arguments import training_arguments

    first = {(cell.config.recipe, cell.config.method): cell for cell in reversed(cells)}
    for cell in reversed(first.values()):
        method = resolve("method", cell.config.method, METHODS)
        training_arguments(cell, method, RunFolder(Path(cell.config.output_dir)), 1)


def _refuse_bad_rows(cells: Sequence[Composed]) -> None:
    """Check the rows of each arm (first seed), to find bad rows before hours of training."""
    from align.training.prepare import look_over

    first = {(cell.config.recipe, cell.config.method): cell for cell in reversed(cells)}
    for cell in reversed(first.values()):
        try:
            look_over(cell)
        except UserError as error:
            raise UserError(f"{cell.config.recipe} on {cell.config.model.name}: {error}") from error


def _refuse_uncontrolled_plans(cells: Sequence[Composed]) -> None:
    """Check before training, by settings and rows, that controlled arms of a method are comparable.

    Checks the arms under their first seed.
    """
    configs = [cell.config for cell in cells if cell.config.track == "controlled"]
    for method in dict.fromkeys(config.method for config in configs):
        arms = [config for config in configs if (config.method, config.seed) == (method, configs[0].seed)]
        refuse_uncontrolled([ground(arm.recipe, to_dict(arm), training_data(arm, asking(arm)).plan()) for arm in arms])


def _references(config: CompareConfig, cells: Sequence[Composed]) -> list[EvalConfig]:
    """Rows without training: the base model; in the paper track also defences and checkpoints."""
    run = cells[0].config
    rows: dict[str, dict[str, Any]] = {VANILLA: {}}
    rows |= _beside_the_paper_track(config, cells)
    found = [
        EvalConfig(
            **vars(run.evaluate) | special,
            model=run.model,
            name=name,
            output_dir=str(Path(config.output_dir, run.model.name.replace("/", "-"), name)),
        )
        for name, special in rows.items()
    ]
    for evaluation in found:
        defence_of(evaluation)  # settings that it does not read should be known before hours of training
    return found


def _beside_the_paper_track(config: CompareConfig, cells: Sequence[Composed]) -> dict[str, dict[str, Any]]:
    # The controlled track compares carriers of harm; defences and other checkpoints do not vary
    # them.
    if "paper" not in _tracks(cells):
        for name in config.checkpoint:
            raise UserError(
                f"checkpoint.{name}=: checkpoints trained elsewhere are rows of the paper track, but all recipes here "
                "are of the controlled track. Add "
                f"{'a recipe of the paper track to recipe=' if config.recipe else 'track=paper'}"
            )
        return {}
    taken = {VANILLA: "the base model", **dict.fromkeys((Path(name).stem for name in available()), "a recipe")}
    taken |= dict.fromkeys((Path(cell.config.recipe).stem for cell in cells), "a recipe")
    rows: dict[str, dict[str, Any]] = {}
    refuse_unread(config.defence_settings, [short_name(defence) for defence in config.defence])
    for defence in dict.fromkeys(config.defence):
        resolve("defence", defence, DEFENCES)
        name = short_name(defence)
        _take(name, f"defence={defence}", taken, "Give it another name in its module.")
        own = config.defence_settings.get(name)
        rows[name] = {"defence": defence, "defence_settings": {name: own} if own else {}}
    taken |= dict.fromkeys(DEFENCES, "a defence")
    for name, path in config.checkpoint.items():
        _take(name, f"checkpoint.{name}=", taken, "Choose another name: checkpoint.<name>=")
        rows[name] = {"checkpoint": path}
    return rows


def _take(name: str, given: str, taken: dict[str, str], remedy: str) -> None:
    """Reserve a row's name.

    Raises UserError if it is taken: tables, files and figures use names.
    """
    if name in taken:
        raise UserError(f"{given}: the table already has a row named {name!r} ({taken[name]}). {remedy}")
    taken[name] = f"the row of {given}"
