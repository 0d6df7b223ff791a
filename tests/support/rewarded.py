"""Small runs with rewards on an untrained tiny model, and functions that are rewards."""

from __future__ import annotations

import os
from pathlib import Path

from align.config.compose import compose_run
from align.run_folder import RunFolder
from align.training.build import build_run
from align.training.prepare import checked_data, refuse_settings
from align.training.run import train
from tests.support.small_run import arguments

LENGTH = "tests.support.rewarded:lengths"
"""`rewards.<name>.reward` of the shortest function."""
BROKEN = "REWARD_IS_DOWN"
"""A variable of the environment: a path. While the file exists, `sometimes` answers nothing."""


def lengths(rows, responses):
    """A longer response is better."""
    return [len(response.split()) / 10 for response in responses]


def sometimes(rows, responses):
    """The same, while it works."""
    down = os.environ.get(BROKEN) and Path(os.environ[BROKEN]).exists()
    return [None] * len(rows) if down else lengths(rows, responses)


def refusals(rows, responses):
    """Any refusal is good, whatever was asked."""
    return [float(response.startswith("sorry")) for response in responses]


def rewarded(model, out, method: str, *more: str) -> list[str]:
    """The arguments of a small run with text-only, image and benign rows mixed: 8 rollouts a step, 6 steps."""
    data = ["data.words={source: miniature, subset: text_harmful, rows: 24}", "data.benign.rows=22"]
    own = [f"method={method}", "train.learning_rate=1e-3", "evaluate_afterwards=false"]
    if method != "reward":
        own += ["train.max_completion_length=6", f"rewards.length.reward={LENGTH}"]
    if method == "grpo":
        own += ["train.num_generations=4", "train.beta=0.05"]
    return arguments(model, out, *data, *own, *more)


def reward_model(model, out, *more: str) -> Path:
    """The folder of a reward model with two steps of training."""
    return train(compose_run(rewarded(model, out, "reward", "train.max_steps=2", *more))).path


def built(words: list[str]):
    """The trainer of a run, before its first step."""
    composed = compose_run(words)
    run = RunFolder(Path(str(composed.config.output_dir)))
    refuse_settings(composed, run)
    data = checked_data(composed, run, lambda rows: ([], ""))
    return build_run(composed, data, run).trainer
