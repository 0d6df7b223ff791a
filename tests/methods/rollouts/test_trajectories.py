"""One run, however it is cut, launched, interrupted: the same rollouts, losses and weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from align.config.compose import compose_run
from align.methods.ppo import PPO
from align.methods.reward import Reward
from align.methods.rollouts import rollout
from align.methods.rollouts.trainer import RolloutTrainer
from align.run_folder import RunFolder
from align.training.run import train
from tests.support.launch import ENVIRONMENT, ROOT, call, train_command
from tests.support.rewarded import reward_model, rewarded
from tests.support.trajectories import SEVERAL, same_trajectory

ROUNDS = ["train.generation_batch_size=16"]
PASSES = {"ppo": ["train.num_ppo_epochs=2", "train.sft_coef=0.1"], "grpo": ["train.num_iterations=2"], "reward": []}


def words(model, out, method, *more):
    rounds = [] if method == "reward" else ROUNDS
    return rewarded(model, out, method, *rounds, *PASSES[method], *more)


def responses(folder: Path) -> list:
    return [
        (line["step"], line["id"], line["response"]) for line in map(json.loads, (folder / "rollouts.jsonl").open())
    ]


OTHERS = [pytest.mark.slow, pytest.mark.long]
"""Of methods that share their code, one is tested in continuous integration."""


@pytest.mark.parametrize("method", ["ppo", *(pytest.param(name, marks=OTHERS) for name in ("reward", "grpo"))])
@pytest.mark.slow_for_qwen2_vl
def test_accumulated_passes_train_what_whole_steps_train(tiny, family_name, tmp_path, method):
    for batch in (8, 2):
        more = ["train.samples=100", "train.sample_steps=1"] if method != "reward" else []
        run = words(
            tiny(family_name), tmp_path / str(batch), method, f"train.per_device_train_batch_size={batch}", *more
        )
        train(compose_run(run))
    same_trajectory(tmp_path / "8", tmp_path / "2")
    if method != "reward":
        assert responses(tmp_path / "8") == responses(tmp_path / "2")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("method", ["ppo", "reward"])
def test_layers_are_recomputed_with_the_adapter_that_computed_them(tiny, tmp_path, method):
    reward = reward_model(tiny("llava"), tmp_path / "model")
    for recomputed in ("false", "true"):
        more = [f"train.gradient_checkpointing={recomputed}", "train.max_grad_norm=0"]
        more += [f"rewards.model.path={reward}", "train.vf_coef=1.0"] if method == "ppo" else []
        run = train(compose_run(words(tiny("llava"), tmp_path / recomputed, method, *more, "train.save_steps=6")))
        assert run.finished()
    same_trajectory(tmp_path / "false", tmp_path / "true")
    if method == "ppo":  # the policy's trajectory alone would not tell whether the critic's gradients are its own
        last = [
            load_file(RunFolder(tmp_path / name).last_checkpoint() / "critic.safetensors") for name in ("false", "true")
        ]
        assert all((last[0][key] - last[1][key]).abs().max() < 1e-4 for key in last[0])


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_train_what_one_trains(tiny, tmp_path):
    model, reward = tiny("llava"), reward_model(tiny("llava"), tmp_path / "model")
    for processes in (1, 2):
        commands = []
        for method in PASSES:
            more = [f"rewards.model.path={reward}"] if method != "reward" else []
            commands += [
                *words(model, tmp_path / f"{method}{processes}", method, "train.per_device_train_batch_size=2", *more),
                "--",
            ]
        done = call(train_command(*commands, processes=processes, script=SEVERAL), tmp_path, 400)
        assert done.returncode == 0, done.stderr
    for method in PASSES:
        same_trajectory(tmp_path / f"{method}1", tmp_path / f"{method}2")


class Stopped(Exception):
    """A process that ends, without a farewell."""


def ends(monkeypatch, owner, name, times):
    """`owner.name` works `times` times, then the process ends there."""
    inner, left = getattr(owner, name), [times]

    def ending(*args, **kwargs):
        if left[0] == 0:
            raise Stopped
        left[0] -= 1
        return inner(*args, **kwargs)

    monkeypatch.setattr(owner, name, ending)


PLACES = {
    "while it samples": (RolloutTrainer, "_measurement", 1),
    "between two passes": (RolloutTrainer, "compute_loss", 5),
    "while it saves": (rollout, "save", 1),
}


@pytest.mark.parametrize("method", ["ppo", pytest.param("grpo", marks=OTHERS)])
@pytest.mark.parametrize("place", [pytest.param("while it samples", marks=OTHERS), *list(PLACES)[1:]])
def test_an_interrupted_run_has_the_same_trajectory(tiny, tmp_path, monkeypatch, method, place):
    more = ["train.save_steps=1", "train.samples=100", "train.sample_steps=1"]
    command = words(tiny("llava"), tmp_path / "cut", method, *more)
    with monkeypatch.context() as patch:
        ends(patch, *PLACES[place])
        with pytest.raises(Stopped):
            train(compose_run(command))
    train(compose_run(command))
    train(compose_run(words(tiny("llava"), tmp_path / "whole", method, *more)))
    same(tmp_path / "cut", tmp_path / "whole", method)


def same(cut: Path, whole: Path, method: str) -> None:
    """Bitwise the same policy, critic and optimizer, and the same samples."""
    last = [RunFolder(folder).last_checkpoint() for folder in (cut, whole)]
    names = ["adapter_model.safetensors", "rollouts.safetensors", *(["critic.safetensors"] if method == "ppo" else [])]
    for name in names:
        one, other = (load_file(checkpoint / name) for checkpoint in last)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
    one, other = (torch.load(checkpoint / "optimizer.pt")["state"] for checkpoint in last)
    assert all(torch.equal(one[i][key], other[i][key]) for i in one for key in one[i])
    assert responses(cut) == responses(whole)
    assert (cut / "steps.jsonl").read_text() == (whole / "steps.jsonl").read_text()


KILLED = """
import os, signal, sys
from align.config.compose import compose_run
from align.methods.rollouts import rollout
from align.methods.rollouts.trainer import RolloutTrainer
from align.training.run import train
owner, name, left = {"rollout": rollout, "trainer": RolloutTrainer}[sys.argv[1]], sys.argv[2], [int(sys.argv[3])]
inner = getattr(owner, name)
def dying(*args, **kwargs):
    left[0] -= 1
    return os.kill(os.getpid(), signal.SIGKILL) if left[0] < 0 else inner(*args, **kwargs)
setattr(owner, name, dying)
train(compose_run(sys.argv[4:]))
"""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_a_killed_run_has_the_same_trajectory(tiny, tmp_path, method):
    more = ["train.save_steps=1", "train.samples=100", "train.sample_steps=1"]
    command = words(tiny("llava"), tmp_path / "cut", method, *more)
    # In the order in which they come in a run: in the first round, while its second step is saved, in the second round.
    for place in (("trainer", "compute_loss", "2"), ("rollout", "save", "1"), ("trainer", "_measurement", "0")):
        killed = [sys.executable, "-c", KILLED, *place, *command]
        done = subprocess.run(
            killed, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=200
        )
        assert done.returncode == -9, (place, done.stderr)
    torch.set_num_threads(1)
    train(compose_run(command))
    train(compose_run(words(tiny("llava"), tmp_path / "whole", method, *more)))
    same(tmp_path / "cut", tmp_path / "whole", method)


def test_a_critic_has_its_own_learning_rate(tiny, tmp_path, monkeypatch):
    seen = {}
    create = PPO.create_optimizer

    def creating(self, *args):
        optimizer = create(self, *args)
        seen.update({len(group["params"]): group["lr"] for group in optimizer.param_groups if group["params"]})
        return optimizer

    monkeypatch.setattr(PPO, "create_optimizer", creating)
    command = words(tiny("llava"), tmp_path / "run", "ppo", "train.critic_learning_rate=5e-4", "train.max_steps=1")
    train(compose_run(command))
    assert sorted(seen.values()) == [5e-4, 1e-3]


def test_an_interrupted_reward_model_has_the_same_trajectory(tiny, tmp_path, monkeypatch):
    command = rewarded(tiny("llava"), tmp_path / "cut", "reward", "train.save_steps=1")
    with monkeypatch.context() as patch:
        ends(patch, Reward, "compute_loss", 3)
        with pytest.raises(Stopped):
            train(compose_run(command))
    runs = [train(compose_run(command)), train(compose_run([*command, f"output_dir={tmp_path / 'whole'}"]))]
    for name in ("adapter_model.safetensors", "scalar_head.safetensors"):
        one, other = (load_file(run.weights / name) for run in runs)
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert runs[0].manifest()["held_out"] == runs[1].manifest()["held_out"]
