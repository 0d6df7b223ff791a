"""The runs that a run needs: the adapter that it starts from, and reward models; trained first where absent."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from align.config.compose import compose_run
from align.config.files import available
from align.config.merge import Composed
from align.console import Report, say
from align.errors import UserError
from align.methods.distributed import world_size
from align.run_folder import RunFolder, run_folder
from align.run_lock import wait_until_free
from align.settings import RewardSettings, RunConfig

OWN = "own"
"""As a reward's recipe: the run's own recipe with method=reward."""
Train = Callable[[Composed, Sequence[Any], Report | None], RunFolder]
Obtain = Callable[[str, Composed], RunFolder | None]
"""(Setting that needs a run, that run) -> its folder; None if it is not there."""


def with_needed_runs(composed: Composed, run: RunFolder, obtain: Obtain) -> None:
    """Set `model.adapter` to that of `start`, and the path of every reward that names a recipe.

    Their runs are next to `run`. Raises UserError.
    """
    config = composed.config
    if config.start is not None:
        if config.model.adapter:
            raise UserError(
                f"{composed.origin('start')}: start={config.start} and model.adapter={config.model.adapter} both say "
                "where the adapter begins; remove one of the two"
            )
        if (folder := obtain("start", needed_run(config, run, config.start))) is not None:
            config.model.adapter = str(folder.weights)
    for key, settings in rewards_with_recipe(config).items():
        recipe = config.recipe if settings.recipe == OWN else str(settings.recipe)
        if (folder := obtain(key, needed_run(config, run, recipe))) is not None:
            settings.path = str(folder.path)


def trained_first(train: Train, callbacks: Sequence[Any], report: Report | None) -> Obtain:
    """Train needed runs that are absent. Runs that start at the same time train them once."""

    def obtain(key: str, needed: Composed) -> RunFolder:
        folder = run_folder(needed.config)
        if not folder.finished() and report is None:
            say(f"{key}: {needed.config.recipe} is trained first, in {folder.path}")
        with _turn(folder.path):
            trained = train(needed, callbacks, report)
        _release()
        return trained

    return obtain


def found_only(lines: list[str]) -> Obtain:
    """Use needed runs that are finished; a line for each goes to `lines`, and nothing is trained."""

    def obtain(key: str, needed: Composed) -> RunFolder | None:
        folder, recipe = run_folder(needed.config), needed.config.recipe
        finished = folder.finished()
        lines.append(f"{key}: {recipe} {'is trained already' if finished else 'is trained first'}, in {folder.path}")
        return folder if finished else None

    return obtain


def rewards_with_recipe(config: RunConfig) -> dict[str, RewardSettings]:
    """{key: reward} of rewards that name the recipe of their reward model, and no path."""
    named = {f"rewards.{name}": settings for name, settings in config.rewards.items()}
    named |= {} if config.cost is None else {"cost": config.cost}
    return {key: settings for key, settings in named.items() if settings.recipe and settings.path is None}


def needed_run(config: RunConfig, run: RunFolder, recipe: str) -> Composed:
    """The run of a recipe with the model, seed and data folder of another run, next to that run."""
    own = ["method=reward", "evaluate_afterwards=false"] if recipe == config.recipe else []
    model = config.model.name if config.model.name in available("models") else str(config.model.path)
    words = [f"recipe={recipe}", f"model={model}", f"seed={config.seed}", *own]
    words += [f"{key}={value}" for key in ("suite", "data_root") if (value := getattr(config, key))]
    needed = compose_run(words)
    needed.config.model = replace(config.model, adapter=None)  # also what the command line says of the model
    if recipe == config.recipe:
        needed.config.view, needed.config.data = config.view, deepcopy(config.data)
    if "save_strategy" in config.train:
        needed.config.train["save_strategy"] = config.train["save_strategy"]
    needed.config.output_dir = str(Path(run.path.parent, run_folder(needed.config).path.name))
    return needed


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Wait until no other run trains this one. One process waits for all of a launch, and all then
    find the same: the run finished, or not.
    """
    from accelerate import PartialState

    folder.parent.mkdir(parents=True, exist_ok=True)
    is_first = int(os.environ.get("RANK", "0")) == 0
    with FileLock(folder.with_name(f".{folder.name}.lock")) if is_first else contextlib.nullcontext():
        if is_first:
            wait_until_free(folder)  # somebody may train it by its own name
        if world_size() > 1:
            PartialState().wait_for_everyone()
        yield


def _release() -> None:
    """Free the model of a run that ended, before the next is loaded, and measure the peak again."""
    import torch

    from align.training.memory import reset_peak_memory

    gc.collect()
    torch.cuda.empty_cache()
    reset_peak_memory()
