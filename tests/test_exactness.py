"""The same experiment is the same: killed and resumed, accumulated, on several processes; every step on record."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

from align.config.compose import compose_run
from align.errors import UserError
from align.interruption import NOTICE, Interrupted
from align.run_folder import RunFolder
from align.training.run import train
from tests.support.launch import ENVIRONMENT, call, train_command
from tests.support.small_run import arguments
from tests.support.trajectories import METHODS, same_trajectory, train_every_method


@pytest.mark.slow_for_qwen2_vl
def test_each_step_counts_its_supervised_tokens(tiny, family_name, tmp_path):
    data = ["data.harmful.subset=text_harmful", "data.benign=null", "view=text", "global_batch_size=8"]
    run = train(compose_run(arguments(tiny(family_name), tmp_path / "run", *data, "train.max_steps=2")))
    steps = [json.loads(line) for line in run.steps_file.open()]
    assert [step["supervised_tokens"] for step in steps] == [
        8 * 12,
        8 * 12,
    ]  # "sorry ... dangerous": 11 words, and the end


@pytest.mark.slow_for_qwen2_vl
def test_accumulation_changes_neither_order_nor_losses(tiny, family_name, tmp_path):
    found = []
    for size in (8, 2):  # 8 rows at once, or four times 2; 14 rows, so the last step of the epoch is filled up
        more = [
            f"train.per_device_train_batch_size={size}",
            "data.harmful.rows=8",
            "data.benign.rows=6",
            "train.max_steps=3",
            "train.save_strategy=no",
            "train.learning_rate=1e-3",
        ]
        run = train(compose_run(arguments(tiny(family_name), tmp_path / str(size), *more)))
        logs = [json.loads(line) for line in (run.path / "log.jsonl").open()]
        found.append((run.steps_file.read_text(), [entry["loss"] for entry in logs if "loss" in entry]))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-4)
    assert len(found[0][1]) == 3


def kill_when(command, folder, run, pattern):
    """Start a command and kill it with all its processes once a checkpoint of that name is whole."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(run.checkpoints.glob(f"{pattern}/trainer_state.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not run.finished()


@pytest.mark.slow
@pytest.mark.long
def test_killed_and_resumed_is_undisturbed_bit_for_bit(tiny, tmp_path):
    more = ["train.max_steps=40", "train.save_steps=5", "train.save_total_limit=2"]
    assert call(train_command(*arguments(tiny("llava"), "whole", *more)), tmp_path, 300).returncode == 0
    command = train_command(*arguments(tiny("llava"), "killed", *more))
    kill_when(command, tmp_path, RunFolder(tmp_path / "killed"), "checkpoint-1*")
    resumed = call(command, tmp_path, 300)
    assert resumed.returncode == 0, resumed.stderr
    whole, killed = (
        load_file(tmp_path / name / "checkpoint" / "adapter_model.safetensors") for name in ("whole", "killed")
    )
    assert all((whole[key] == killed[key]).all() for key in whole)
    logs = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").open()] for name in ("whole", "killed")]
    assert RunFolder(tmp_path / "killed").manifest()["seconds"] > 1
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 40
    whole_steps, killed_steps = (RunFolder(tmp_path / name).steps_file.read_text() for name in ("whole", "killed"))
    assert whole_steps == killed_steps


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_killed_in_their_second_epoch_take_the_same_rows(tiny, tmp_path):
    more = [
        "train.max_steps=20",
        "train.save_steps=1",
        "train.learning_rate=1e-3",
        "data.benign.rows=22",
    ]  # 6 steps an epoch
    assert call(train_command(*arguments(tiny("llava"), "one", *more)), tmp_path, 300).returncode == 0
    command = train_command(*arguments(tiny("llava"), "two", *more), processes=2)
    kill_when(command, tmp_path, RunFolder(tmp_path / "two"), "checkpoint-[89]")
    resumed = call(command, tmp_path, 300)
    assert resumed.returncode == 0, resumed.stderr
    one, two = (RunFolder(tmp_path / name).steps_file.read_text() for name in ("one", "two"))
    assert one == two
    assert len(one.splitlines()) == 20


def test_steps_that_are_no_longer_on_record_are_not_made_up(tiny, tmp_path):
    command = arguments(tiny("llava"), tmp_path / "run", "train.max_steps=4")
    run = train(compose_run(command))
    run.record(status="running")
    run.steps_file.write_text("")
    with pytest.raises(UserError, match="steps.jsonl has 0 of the 4 steps before the checkpoint; .* resume=false"):
        train(compose_run(command))


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_where_it_ends_anyway_is_finished(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(NOTICE, "signal", "SIGTERM")
    with pytest.raises(Interrupted, match="interrupted at step 1 of 6"):
        train(compose_run(arguments(tiny("llava"), tmp_path / "asked")))
    assert train(compose_run(arguments(tiny("llava"), tmp_path / "last", "train.max_steps=1"))).finished()
    bound = ["method=unlearning", "train.max_harmful_loss=0.1"]
    stopped = train(compose_run(arguments(tiny("llava"), tmp_path / "bound", *bound)))
    assert stopped.finished()
    assert "stopped at step 1" in stopped.manifest()["stopped"]


def test_a_checkpoint_appears_whole_or_not_at_all(tiny, tmp_path, monkeypatch):
    command = arguments(tiny("llava"), tmp_path / "run", "train.max_steps=4")
    written = Trainer._save_rng_state  # one of the last files of a checkpoint

    def disk_is_full(trainer, folder):
        if trainer.state.global_step == 4:
            raise OSError(28, "No space left on device")
        written(trainer, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_rng_state", disk_is_full)
        with pytest.raises(OSError, match="No space left"):
            train(compose_run(command))
    run = RunFolder(tmp_path / "run")
    assert [path.name for path in run.checkpoints.glob("checkpoint-*")] == ["checkpoint-2"]
    assert list(run.checkpoints.glob(".being-saved/*"))
    train(compose_run(command))
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-4"
    assert not list(run.checkpoints.glob(".*"))


CUTS = {"one": (1, 8), "one-accumulated": (1, 2), "two": (2, 4), "two-accumulated": (2, 2)}
"""Name -> (processes, rows of a forward pass), of steps of 8 rows: accumulation 1, 4, 1 and 2."""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_method_takes_one_trajectory_however_its_steps_are_cut(tiny, family_name, tmp_path):
    for name, (processes, batch) in CUTS.items():
        train_every_method(tiny(family_name), tmp_path / name, processes, batch)
        for method in METHODS:
            same_trajectory(tmp_path / "one" / method, tmp_path / name / method)
            assert RunFolder(tmp_path / name / method).manifest()["distributed_type"] == (
                "MULTI_CPU" if processes == 2 else "NO"
            )


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_all_processes_stop_where_one_would_under_accumulation_too(tiny, tmp_path):
    bound = ["method=unlearning", "train.max_harmful_loss=5.3", "train.harmful_weight=-5", "train.max_steps=30"]
    found = []
    for name, (processes, batch) in {"one": (1, 8), "two": (2, 2)}.items():
        command = arguments(
            tiny("llava"), name, *bound, f"train.per_device_train_batch_size={batch}", "evaluate.benchmark=[]"
        )
        done = call(train_command(*command, processes=processes), tmp_path, 200)
        assert done.returncode == 0, done.stderr
        manifest = RunFolder(tmp_path / name).manifest()
        found.append((manifest["steps"], manifest["stopped"]))
    assert found[0] == found[1]
    assert 1 < found[0][0] < 30


@pytest.mark.long
@pytest.mark.slow
def test_more_processes_than_the_run_wants_are_an_error(tiny, tmp_path):
    failed = call(train_command(*arguments(tiny("llava"), "run", "num_processes=1"), processes=2), tmp_path)
    assert failed.returncode != 0
    assert (
        "num_processes=1, but 2 processes are running; launch with `accelerate launch --num_processes 1"
        in failed.stderr
    )


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["trainable=[language_model]"]], ids=["default towers", "language model"])
def test_full_fine_tuning_resumes_from_the_weights_of_its_checkpoint(tiny, family_name, tmp_path, more):
    full = ["lora=null", "train.learning_rate=1e-3", "train.max_steps=2", "train.save_steps=1", *more]
    full += ["train.save_total_limit=2", "evaluate.benchmark=[]"]
    command = arguments(tiny(family_name), tmp_path / "run", *full)
    run = train(compose_run(command))
    whole = load_file(run.weights / "model.safetensors")
    shutil.rmtree(run.checkpoints / "checkpoint-2")
    run.record(status="running")
    train(compose_run(command))
    again = load_file(run.weights / "model.safetensors")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
