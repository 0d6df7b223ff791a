"""After a signal a run saves itself and ends with status 75. Resumed, it has the same result, under every launcher."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from safetensors.torch import load_file

from align.config.compose import compose_run
from align.run_folder import RunFolder
from align.training.run import train
from tests.support.launch import ENVIRONMENT, align, call, train_command
from tests.support.rewarded import rewarded
from tests.support.small_run import arguments
from tests.support.trajectories import same_trajectory


def small(model, out, method, *more):
    """The arguments of a small run of a method without rewards."""
    return arguments(model, out, f"method={method}", *more)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("launcher", "number", "method"),
    [
        pytest.param("zero2", signal.SIGTERM, "sft", marks=pytest.mark.long),
        pytest.param("cpu", signal.SIGUSR1, "sft", marks=pytest.mark.long),
        pytest.param("zero3", signal.SIGTERM, "sft", marks=pytest.mark.long),
        pytest.param("cpu", signal.SIGTERM, "ppo", marks=pytest.mark.long),
        pytest.param("zero2", signal.SIGTERM, "ppo", marks=pytest.mark.long),
    ],
)
def test_a_run_that_is_asked_to_stop_saves_itself_and_goes_on_to_the_same_result(
    launcher, number, method, tiny, tmp_path
):
    def command(name):
        settings = ["train.max_steps=60", "train.save_steps=500", "num_processes=2", "evaluate.benchmark=[]"]
        # A round of two steps, so that most signals come between its passes.
        own = ["rewards.length.reward=rule", "train.generation_batch_size=16"] if method == "ppo" else []
        words = (rewarded if method == "ppo" else small)(tiny("llava"), name, method, *settings, *own)
        return align("train", f"launch.config={launcher}", *words)

    run, whole = RunFolder(tmp_path / "asked"), RunFolder(tmp_path / "whole")
    process = subprocess.Popen(
        command("asked"), cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    wait_for(lambda: run.steps_file.is_file() and len(run.steps_file.read_text().splitlines()) >= 5)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 75, said
    taken = len(run.steps_file.read_text().splitlines())
    assert 5 <= taken < 60
    assert f"interrupted at step {taken} of 60; to resume it, repeat the command" in said
    assert run.manifest()["status"] == "interrupted"
    assert run.last_checkpoint() == run.checkpoints / f"checkpoint-{taken}"
    for name in ("asked", "whole"):
        done = call(command(name), tmp_path, 300)
        assert done.returncode == 0, done.stderr
    same_trajectory(whole.path, run.path)
    adapters = [load_file(one.weights / "adapter_model.safetensors") for one in (run, whole)]
    assert all((adapters[0][key] - adapters[1][key]).abs().max() < 1e-6 for key in adapters[1])


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_that_hear_a_schedulers_signal_too_go_on_until_their_run_has_saved_itself(tiny, tmp_path):
    settings = ["train.max_steps=60", "train.save_steps=500", "evaluate.benchmark=[]"]
    run = RunFolder(tmp_path / "asked")
    asked = align("train", *arguments(tiny("llava"), run.path, *settings, "train.dataloader_num_workers=2"))
    process = subprocess.Popen(asked, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, start_new_session=True)
    wait_for(lambda: run.steps_file.is_file() and len(run.steps_file.read_text().splitlines()) >= 5)
    os.killpg(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 75, said
    assert run.last_checkpoint() is not None
    done = call(asked, tmp_path, 300)
    assert done.returncode == 0, done.stderr
    assert "fork" not in done.stderr  # tokenizers warn where they cannot be used in a worker as before
    whole = train(compose_run(arguments(tiny("llava"), tmp_path / "whole", *settings)))
    same_trajectory(whole.path, run.path)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_signal_that_reaches_one_training_process_of_two_stops_both(tiny, tmp_path):
    settings = ["train.max_steps=60", "evaluate.benchmark=[]"]
    command = train_command(*arguments(tiny("llava"), "run", *settings), processes=2)
    run = RunFolder(tmp_path / "run")
    process = subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    wait_for(lambda: run.steps_file.is_file() and len(run.steps_file.read_text().splitlines()) >= 5)
    [second] = [child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == "1"]
    second.send_signal(signal.SIGUSR1)
    said = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 1  # accelerate's own; `align train` ends with 75
    assert "exitcode  : 75" in said
    assert run.manifest()["status"] == "interrupted"


def wait_for(happened, seconds=120):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.long
@pytest.mark.slow
def test_an_earlier_interruption_does_not_make_a_failure_one(tiny, tmp_path):
    RunFolder(tmp_path / "run").record(status="interrupted")
    failed = call(align("train", *arguments(tiny("llava"), "run")), tmp_path)
    assert "run contains another run" in failed.stderr
    assert failed.returncode == 2


def test_a_signal_before_training_ends_the_process_at_once(tmp_path):
    script = "from align.interruption import NOTICE; NOTICE.listen(); import os, signal; os.kill(os.getpid(), signal.SIGTERM); print(1)"
    done = call([sys.executable, "-c", script], tmp_path)
    assert (done.returncode, done.stdout) == (75, "")
    assert "SIGTERM: stopped; nothing had to be saved" in done.stderr
