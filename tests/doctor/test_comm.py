"""`comm=true` under a real launcher with two processes: the sum is right, and a process that does
not answer is named.
"""

import json
import socket
from pathlib import Path

import pytest

from tests.support.launch import LAUNCH, ROOT, call, train_command

pytestmark = pytest.mark.slow
TROUBLE = Path(__file__).parents[1] / "support" / "doctor_with_trouble.py"


def launched(folder, *words, config=None):
    """`accelerate launch ... -m align.cli doctor <words>` with two processes."""
    command = train_command(processes=2, config=config)
    command[-1:] = ["-m", "align.cli", "doctor", *words]
    return call(with_free_port(command), folder)


def with_free_port(command):
    """Other launches on this machine may have the usual one."""
    return [*command[:2], "--main_process_port", "0", *command[2:]]


def said_once(done):
    """The one JSON object that is printed, by whichever process speaks -> {name: check}."""
    said = json.loads(done.stdout)
    return {check["name"]: check for check in said["checks"]}


@pytest.mark.long
def test_two_processes_reduce_and_one_of_them_prints(tmp_path):
    done = launched(tmp_path, "comm=true", "format=json")
    assert done.returncode == 0, done.stderr
    checks = said_once(done)
    assert checks["processes"]["found"] == f"{socket.gethostname()}: rank 0, 1"
    assert "MULTI_CPU over gloo, 2 processes: correct sum; 1 MiB in" in checks["all-reduce"]["found"]
    assert checks["torch"]["status"] == "ok"


@pytest.mark.long
def test_under_deepspeed_it_is_deepspeed_that_reduces(tmp_path):
    done = launched(tmp_path, "comm=true", "format=json", config=ROOT / "accelerate_configs" / "zero2.yaml")
    assert done.returncode == 0, done.stderr
    assert "DEEPSPEED over gloo, 2 processes: right" in said_once(done)["all-reduce"]["found"]


@pytest.mark.long
def test_what_stops_the_run_fails_on_every_process(tmp_path):
    words = ["comm=true", "format=json", "recipe=mm_sft", "data.harmful={source: local, path: /nowhere.jsonl}"]
    done = launched(tmp_path, *words)
    assert done.returncode == 1
    checks = said_once(done)
    assert checks["all-reduce"]["status"] == "ok"
    assert checks["data.harmful"]["status"] == "missing"


@pytest.mark.long
@pytest.mark.parametrize(
    ("trouble", "name", "found"),
    [
        ("absent", "processes", "no answer within 20 s: rank 1"),
        ("stuck", "all-reduce", "did not finish within 20 s"),
        ("raising", "all-reduce", "a cable is out"),
    ],
)
def test_a_process_in_trouble_is_named_and_nothing_hangs(tmp_path, trouble, name, found):
    command = train_command(trouble, "comm=true", "comm_timeout=20", "format=json", processes=2, script=TROUBLE)
    done = call(with_free_port(command), tmp_path, timeout=100)
    assert done.returncode == 1
    checks = said_once(done)
    assert checks[name]["status"] == "broken"
    assert found in checks[name]["found"]
    if name == "all-reduce":
        assert f"rank 1 ({socket.gethostname()})" in checks[name]["found"]


@pytest.mark.long
def test_a_cpu_launch_that_accelerate_turns_into_one_process_is_visible(tmp_path):
    command = [*train_command()[:2], "--cpu", "--num_processes", "2", *LAUNCH, "-m", "align.cli", "doctor", "comm=true"]
    done = call(with_free_port(command), tmp_path)
    assert done.returncode == 0
    assert "only one process" in done.stdout
    assert "ACCELERATE_USE_CPU=true" in done.stdout
