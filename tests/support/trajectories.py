"""The same small run of every method, however it is cut and launched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from align.run_folder import RunFolder
from tests.support.launch import call, train_command
from tests.support.small_run import arguments

METHODS = ("sft", "dpo", "unlearning", "safe_unlearning")
SEVERAL = Path(__file__).with_name("train_several.py")


def train_every_method(
    model: Path,
    out: Path,
    processes: int,
    batch: int,
    *more: str,
    config: Path | None = None,
    methods: tuple[str, ...] = METHODS,
) -> None:
    """Runs of every method in folders of their names, six steps of 8 rows; in passes of two rows
    many a process has no image.
    """
    commands = []
    for method in methods:
        data = ["data.words={source: miniature, subset: text_harmful, rows: 24}", "data.benign.rows=22"]
        settings = [f"method={method}", "train.learning_rate=1e-3", f"train.per_device_train_batch_size={batch}"]
        settings += ["train.loss_type=sigmoid,sft"] if method == "dpo" else []
        commands += [*arguments(model, out / method, *data, *settings, *more), "--"]
    command = train_command(*commands, processes=processes, script=SEVERAL, config=config)
    done = call(command, out.parent, 400)
    assert done.returncode == 0, done.stderr
    for method in methods:
        manifest = RunFolder(out / method).manifest()
        assert (manifest["world_size"], manifest["steps"]) == (processes, 6)


def same_trajectory(one: Path, other: Path) -> None:
    """The same rows in every step, the same losses and trained weights to 1e-4."""
    steps, losses, weights = _trajectory(one)
    other_steps, other_losses, other_weights = _trajectory(other)
    assert other_steps == steps
    assert other_losses == pytest.approx(losses, abs=1e-4)
    assert other_weights.keys() == weights.keys()
    assert all((weights[key] - other_weights[key]).abs().max() < 1e-4 for key in weights)


def _trajectory(folder: Path) -> tuple:
    run = RunFolder(folder)
    losses = [float(e["loss"]) for e in map(json.loads, (folder / "log.jsonl").open()) if "loss" in e]
    files = sorted(run.weights.glob("*.safetensors"))  # a reward model has its head in a file of its own
    weights = {f"{file.name} {key}": value for file in files for key, value in load_file(file).items()}
    return run.steps_file.read_text(), losses, weights
