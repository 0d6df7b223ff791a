"""Whatever becomes of the evaluation after training, the run stays finished, and one printed
command goes on with it.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import psutil
import pytest

from align.cli import main
from align.config.compose import compose_run
from align.models.loading import load_checkpoint
from align.run_folder import RunFolder
from align.training.run import train
from tests.support.launch import ENVIRONMENT, align, call, train_command
from tests.support.small_run import arguments

EVALUATION = "evaluate={benchmark: [mini_vsil], settings: {mini_vsil: {limit: 4}}, generation: {max_new_tokens: 4}}"
CURVE = "evaluate.every_steps=3"
JUDGES = """
import os
import time
from pathlib import Path

from align.evaluation.verdicts import Judge, Verdict

MENDED = Path(__file__).with_name("mended")


def _labels(kind):
    return ("safe", "unsafe")


def _away(row, response):
    if not MENDED.exists():
        raise RuntimeError("the judge is away")
    return Verdict("safe")


def _slow(row, response):
    Path(__file__).with_name("judging").write_text(str(os.getpid()))
    while not MENDED.exists():
        time.sleep(0.05)
    return Verdict("safe")


away = Judge("away", "1", _away, _labels)
slow = Judge("slow", "1", _slow, _labels)
"""
HOOK = """
import sys
from pathlib import Path
from align.evaluation.hook import evaluate_in_child
from align.interruption import NOTICE
from align.run_folder import RunFolder
NOTICE.listen()
sys.exit(evaluate_in_child(RunFolder(Path("run"))))
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with judges of its own, `judges_of_ours`."""
    (tmp_path / "judges_of_ours.py").write_text(JUDGES)
    return tmp_path


def importing(folder, command):
    """A command that finds the judges of a folder."""
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return ["env", f"PYTHONPATH={path}", *command]


def finished(run):
    """Whether a run is one that was trained to its end, with weights that load."""
    load_checkpoint(str(run.weights))
    return run.finished()


def summary(folder, judge):
    return json.loads((folder / "mini_vsil" / f"summary.{judge}.json").read_text())


@pytest.mark.long
@pytest.mark.slow
def test_an_evaluation_that_fails_is_finished_by_the_command_that_is_printed(tiny, folder):
    command = arguments(tiny("llava"), "run", EVALUATION, "evaluate.judge=judges_of_ours:away", CURVE)
    first = call(importing(folder, train_command(*command)), folder)
    assert first.returncode != 0
    run = RunFolder(folder / "run")
    assert "RuntimeError: the judge is away" in first.stderr
    assert finished(run)
    assert (run.weights / "README.md").is_file()
    [said] = [line for line in first.stderr.splitlines() if "To resume the evaluation: " in line]
    assert said.startswith("evaluation ended with status 1. ")
    assert "To resume the evaluation: align eval" in said
    trained, answered = run.manifest_file.read_bytes(), (run.evaluation / "mini_vsil" / "responses.jsonl").read_text()
    (folder / "mended").touch()
    again = call(align(*shlex.split(said.partition("To go on: align ")[2])), folder)
    assert again.returncode == 0, again.stderr
    assert (
        summary(run.evaluation, "away")["counts"]["safe"] + summary(run.evaluation, "away")["counts"]["incoherent"] == 4
    )
    assert (run.evaluation / "mini_vsil" / "responses.jsonl").read_text() == answered
    assert [point["step"] for point in json.loads(run.curve_file.read_text())["points"]] == [3, 6]
    assert run.manifest_file.read_bytes() == trained


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A run whose evaluation waits for a file of the judge's."""
    folder = tmp_path_factory.mktemp("trained")
    command = arguments(tiny("llava"), folder / "run", EVALUATION)
    run = train(compose_run(command))
    run.write_config(compose_run([*command, "evaluate.judge=judges_of_ours:slow"]).config)  # known in that folder alone
    (folder / "judges_of_ours.py").write_text(JUDGES)
    return run


def wait_for(file, process):
    deadline = time.monotonic() + 120
    while not (file.is_file() and file.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(file.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "why"),
    [
        (signal.SIGTERM, 75, "SIGTERM: evaluation stopped"),
        pytest.param(signal.SIGUSR1, 75, "SIGUSR1: evaluation stopped", marks=pytest.mark.long),  # as SIGTERM
        (signal.SIGINT, 130, "evaluation stopped"),
    ],
)
@pytest.mark.parametrize("whom", ["the hook", pytest.param("all", marks=pytest.mark.long)])
@pytest.mark.long
def test_a_signal_ends_the_evaluation_and_the_hook_says_how_to_go_on(trained, whom, number, status, why):
    judging = trained.path.with_name("judging")
    judging.unlink(missing_ok=True)
    hook = subprocess.Popen(
        [sys.executable, "-c", HOOK],
        cwd=trained.path.parent,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    child = wait_for(judging, hook)
    assert child != hook.pid
    if whom == "all":
        os.killpg(hook.pid, number)  # as a terminal does it, and a scheduler
    else:
        hook.send_signal(number)
    said = hook.communicate(timeout=30)[1].decode()
    assert hook.returncode == status, said
    assert re.search(rf"{re.escape(why)}\. .*checkpoint is complete.*: align eval run=run", said)
    assert "Traceback" not in said
    assert not psutil.pid_exists(child)
    assert finished(trained)
    assert trained.evaluation_interrupted.exists() == (status == 75)


@pytest.mark.slow
def test_a_child_that_is_killed_is_a_failure(trained):
    judging = trained.path.with_name("judging")
    judging.unlink(missing_ok=True)
    hook = subprocess.Popen(
        [sys.executable, "-c", HOOK], cwd=trained.path.parent, env=ENVIRONMENT, stderr=subprocess.PIPE
    )
    os.kill(wait_for(judging, hook), signal.SIGKILL)  # what a machine without memory does
    said = hook.communicate(timeout=30)[1].decode()
    assert hook.returncode == 128 + 9
    assert re.search(r"evaluation was ended by SIGKILL\. .*checkpoint is complete.*: align eval", said)
    assert not trained.evaluation_interrupted.exists()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_align_train_ends_with_75_where_only_the_process_that_evaluates_was_asked_to_stop(tiny, folder):
    settings = arguments(tiny("llava"), "run", EVALUATION, "evaluate.judge=judges_of_ours:slow")
    command = importing(folder, align("train", *settings))
    process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    child = wait_for(folder / "judging", process)
    psutil.Process(child).parent().send_signal(signal.SIGUSR1)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 75, said
    assert "SIGUSR1: evaluation stopped. Training is finished" in said
    assert finished(RunFolder(folder / "run"))
    (folder / "mended").touch()
    again = call(command, folder)
    assert again.returncode == 0, again.stderr
    assert summary(folder / "run" / "evaluation", "slow")["n"] == 4
    assert not RunFolder(folder / "run").evaluation_interrupted.exists()


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("align.commands.evaluate.main", interrupted)
    assert main(["eval", "run=x"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
