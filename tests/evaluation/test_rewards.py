"""A reward model scores the responses of an evaluation: as in training, each once, and none that is absent."""

import json
import re

import pytest

from align.cli import main
from align.config.compose import compose_run
from align.files import read_jsonl
from align.run_folder import RunFolder
from align.training.run import train

DATA = ("suite=miniature", "data.harmful.rows=12", "data.benign.rows=12", "global_batch_size=8", "model.dtype=float32")
ASKED = ("benchmark=mini_vsil,mini_benign", "limit=6", "generation.max_new_tokens=4", "judge=none")


@pytest.fixture(scope="module")
def reward(tiny, tmp_path_factory):
    """The run folder of a reward model, trained for two steps."""
    folder = tmp_path_factory.mktemp("reward") / "mm_reward-seed0"
    words = [f"model={tiny('llava')}", *DATA, "train.max_steps=2", "train.held_out=0.3", "train.learning_rate=1e-2"]
    words += [f"output_dir={folder}", "train.save_strategy=no"]
    return train(compose_run(["recipe=mm_reward", *words])).path


@pytest.fixture
def scored(tiny, reward, tmp_path, capsys):
    """A function: further arguments -> (what was printed, {benchmark: lines of its file of rewards})."""

    def score(*more):
        words = [f"model={tiny('llava')}", "model.dtype=float32", *ASKED, f"output_dir={tmp_path / 'out'}"]
        assert main(["eval", f"reward={reward}", *words, *more]) == 0
        files = (tmp_path / "out" / "evaluation").glob("*/rewards.mm_reward-seed0.jsonl")
        return capsys.readouterr().out, {file.parent.name: list(read_jsonl(file)) for file in files}

    return score


def test_it(scored, reward):
    print(scored())
    print(RunFolder(reward).manifest()["held_out"])
    assert 0
