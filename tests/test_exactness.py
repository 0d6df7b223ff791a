"""The same experiment is the same: killed and resumed, accumulated, on several processes; every step on record."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from align.config import compose_run
from align.errors import UserError
from align.run_folder import RunFolder
from align.train import train
from tests.support.launch import ENVIRONMENT, call, train_command
from tests.support.small_run import arguments


def test_each_step_counts_its_supervised_tokens(tiny, family_name, tmp_path):
    data = ["data.harmful.subset=text_harmful", "data.benign=null", "view=text", "global_batch_size=8"]
    run = train(compose_run(arguments(tiny(family_name), tmp_path / "run", *data, "train.max_steps=2")))
    steps = [json.loads(line) for line in run.steps_file.open()]
    assert [step["supervised_tokens"] for step in steps] == [
        8 * 12,
        8 * 12,
    ]  # "sorry ... dangerous": 11 words, and the end


def test_accumulation_changes_neither_order_nor_losses(tiny, family_name, tmp_path):
    found = []
    for size in (8, 2):  # 8 rows at once, or four times 2; 46 rows, so the last step of the epoch is filled up
        more = [
            f"train.per_device_train_batch_size={size}",
            "data.benign.rows=22",
            "train.max_steps=8",
            "train.learning_rate=1e-3",
        ]
        run = train(compose_run(arguments(tiny(family_name), tmp_path / str(size), *more)))
        logs = [json.loads(line) for line in (run.path / "log.jsonl").open()]
        found.append((run.steps_file.read_text(), [entry["loss"] for entry in logs if "loss" in entry]))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-4)
    assert len(found[0][1]) == 8


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


def test_a_half_written_checkpoint_is_removed_and_the_one_before_it_used(tmp_path, capsys):
    run = RunFolder(tmp_path)
    for step, state in ((5, '{"global_step": 5}'), (10, '{"global_s'), (15, None)):
        folder = run.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if state:
            (folder / "trainer_state.json").write_text(state)
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-5"
    assert "checkpoint-15 was left half written; removed" in capsys.readouterr().out


METHODS = ("sft", "dpo", "unlearning", "safe_unlearning")
SEVERAL = Path(__file__).with_name("support") / "train_several.py"
CUTS = {"one": (1, 8), "one-accumulated": (1, 2), "two": (2, 4), "two-accumulated": (2, 2)}
"""Name -> (processes, rows of a forward pass), of steps of 8 rows: accumulation 1, 4, 1 and 2."""


def every_method(model, name, batch):
    """Runs of every method on mixed rows: in passes of two rows many a process has no image."""
    commands = []
    for method in METHODS:
        data = ["data.words={source: miniature, subset: text_harmful, rows: 24}", "data.benign.rows=22"]
        more = [f"method={method}", "train.learning_rate=1e-3", f"train.per_device_train_batch_size={batch}"]
        more += ["train.loss_type=sigmoid,sft"] if method == "dpo" else []
        commands += [*arguments(model, f"{name}/{method}", *data, *more), "--"]
    return commands


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_method_takes_one_trajectory_however_its_steps_are_cut(tiny, family_name, tmp_path):
    found: dict[str, dict[str, Any]] = {method: {} for method in METHODS}
    for name, (processes, batch) in CUTS.items():
        command = train_command(*every_method(tiny(family_name), name, batch), processes=processes, script=SEVERAL)
        done = call(command, tmp_path, 300)
        assert done.returncode == 0, done.stderr
        for method in METHODS:
            run = RunFolder(tmp_path / name / method)
            manifest = run.manifest()
            assert (manifest["world_size"], manifest["steps"]) == (processes, 6)
            assert (manifest["distributed_type"] == "MULTI_CPU") == (processes == 2)
            losses = [float(e["loss"]) for e in map(json.loads, (run.path / "log.jsonl").open()) if "loss" in e]
            adapter = load_file(run.weights / "adapter_model.safetensors")
            found[method][name] = run.steps_file.read_text(), losses, adapter
    for method in METHODS:
        steps, losses, adapter = found[method]["one"]
        for name in CUTS:
            other_steps, other_losses, other_adapter = found[method][name]
            assert other_steps == steps
            assert other_losses == pytest.approx(losses, abs=1e-4)
            assert all((adapter[key] - other_adapter[key]).abs().max() < 1e-4 for key in adapter)


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


@pytest.mark.slow
def test_more_processes_than_the_run_wants_are_an_error(tiny, tmp_path):
    failed = call(train_command(*arguments(tiny("llava"), "run", "num_processes=1"), processes=2), tmp_path)
    assert failed.returncode != 0
    assert (
        "num_processes=1, but 2 processes are running; launch with `accelerate launch --num_processes 1"
        in failed.stderr
    )
