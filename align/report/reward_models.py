"""Reward models, which score responses and write none, and their accuracy on held-out pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from align.config.registry import REWARD_MODEL
from align.errors import UserError
from align.report.file_schema import ACCURACY, HELD_OUT, checked
from align.report.names import display_name, percent
from align.report.run_results import Evaluated
from align.run_folder import RunFolder


def is_reward_model(run: Evaluated) -> bool:
    """Whether a run is a reward model, which is no row of safety results."""
    return bool(run.row["method"] == REWARD_MODEL)


def accuracy_of(run: Evaluated) -> dict[str, Any] | None:
    """The accuracy of a reward model (`held_out` in docs/formats.md); None without held-out pairs.

    Raises UserError if it is damaged.
    """
    held_out = run.manifest.get("held_out") or {}
    if not held_out.get("n"):
        return None
    file = run.run.manifest_file
    for of_category in checked(file, held_out, HELD_OUT)["by_category"].values():
        checked(file, of_category, ACCURACY)
    return held_out


def accuracy_line(run: Evaluated) -> str:
    """A line on a reward model: its name and its accuracy."""
    who = f"reward model {display_name(run.row['name'])} of {run.row['model']}, seed {run.row['seed']}"
    found = accuracy_of(run)
    if found is None:
        return f"{who}: no pairs were held out from its training (train.held_out), so its accuracy is unknown"
    rate = "{} [{}, {}]".format(*(percent(found[key]) for key in ("accuracy", "low", "high")))
    return f"{who}: {rate} % of n={found['n']} held-out pairs have the higher reward for the chosen response"


def reward_models_of(runs: Sequence[RunFolder]) -> list[Evaluated]:
    """The reward models that some runs learned from, each once."""
    found = {path: RunFolder(Path(path)) for run in runs for path in _paths(run)}
    read = [Evaluated(run) for run in found.values() if run.finished()]
    return [run for run in read if is_reward_model(run)]


def _paths(run: RunFolder) -> Iterator[str]:
    if not run.manifest().get("rewards"):
        return
    config = run.config()
    rewards = [*config.rewards.values(), *([config.cost] if config.cost else [])]
    yield from (reward.path for reward in rewards if reward.path)


def split(runs: Sequence[Evaluated]) -> tuple[list[Evaluated], list[Evaluated], list[str]]:
    """-> (other runs, reward models, notes on damaged ones)."""
    models: list[Evaluated] = []
    notes: list[str] = []
    for run in filter(is_reward_model, runs):
        try:
            accuracy_of(run)
            models.append(run)
        except UserError as error:
            notes.append(f"{run.run.path}: damaged: {error}")
    return [run for run in runs if not is_reward_model(run)], models, notes
