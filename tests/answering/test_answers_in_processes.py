"""Several processes generate answers: each is generated once, a killed run goes on, and all train on the same."""

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock
from safetensors.torch import load_file

from align.rows import Row
from tests.support.launch import ENVIRONMENT, align, call, train_command
from tests.support.unanswered import data, settings, stored, write_rows

pytestmark = pytest.mark.usefixtures("cache")


def test_while_another_process_generates_this_one_says_so_and_waits(tiny, tmp_path, cache, questions, capsys):
    file = write_rows(tmp_path / "data")
    data(tiny("llava"), file)
    (path,) = (cache / "vsil-align" / "answers").glob("*.jsonl")
    lines = path.read_text()
    path.write_text(lines[: len(lines) // 2])  # the other process is in the middle of it
    del questions[:]
    other = FileLock(f"{path}.lock")
    with ThreadPoolExecutor(1) as pool:
        with other:
            waiting = pool.submit(data, tiny("llava"), file)
            shown, deadline = "", time.monotonic() + 30
            while "Another process is generating the responses of" not in shown:
                assert time.monotonic() < deadline
                shown += capsys.readouterr().out
                time.sleep(0.01)
            assert not waiting.done()
            path.write_text(lines)
        assert len(waiting.result(30).rows) == 4
    assert questions == []


@pytest.mark.long
@pytest.mark.slow
def test_killed_for_good_it_goes_on_and_ends_in_the_same_weights(tiny, tmp_path, cache):
    file = write_rows(tmp_path / "data", n=5)
    more = [
        "generation.batch_size=1",
        "generation.max_new_tokens=60",
        "suite=null",
        "train.max_steps=2",
        "train.learning_rate=1e-2",
    ]
    command = train_command(*settings(tiny("llava"), file, *more, "output_dir=killed"))
    environment = ENVIRONMENT | {"XDG_CACHE_HOME": str(cache)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    answers, deadline = cache / "vsil-align" / "answers", time.monotonic() + 120
    while not any(path.stat().st_size for path in answers.glob("*.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = len(stored(cache))
    assert subprocess.run(command, cwd=tmp_path, env=environment, check=False, timeout=120).returncode == 0
    assert len(stored(cache)) == 5 >= before
    whole = train_command(*settings(tiny("llava"), file, *more, "output_dir=whole"))
    assert (
        subprocess.run(
            whole, cwd=tmp_path, env=environment | {"XDG_CACHE_HOME": str(tmp_path / "other")}, check=False, timeout=120
        ).returncode
        == 0
    )
    one, other = (
        load_file(tmp_path / name / "checkpoint" / "adapter_model.safetensors") for name in ("killed", "whole")
    )
    assert all((one[key] == other[key]).all() for key in one)


@pytest.mark.long
@pytest.mark.slow
def test_of_two_processes_one_generates_and_both_train_on_it(tiny, tmp_path, cache, monkeypatch):
    file = write_rows(tmp_path / "data")
    more = ["suite=null", "train.max_steps=2", "generation.batch_size=1", f"output_dir={tmp_path / 'run'}"]
    monkeypatch.setitem(ENVIRONMENT, "XDG_CACHE_HOME", str(cache))
    done = call(train_command(*settings(tiny("llava"), file, *more), processes=2), tmp_path, 240)
    assert done.returncode == 0, done.stderr
    lines = stored(cache)
    assert sorted(line["row"] for line in lines) == [f"harmful/h{i}" for i in range(4)]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["world_size"], manifest["status"]) == (2, "finished")


@pytest.mark.long
@pytest.mark.slow
def test_processes_with_different_answers_are_refused(tiny, tmp_path, monkeypatch):
    part = "data.harmful={source: 'tests.answering.test_answers_in_processes:of_this_process'}"
    arguments = settings(
        tiny("llava"), "", part, "view=text", "suite=null", "train.max_steps=1", f"output_dir={tmp_path / 'run'}"
    )
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(train_command.__globals__["ROOT"]))
    done = call(train_command(*arguments, processes=2), tmp_path, 240)
    assert done.returncode != 0
    assert "the processes have different training data (fingerprints" in done.stderr


def of_this_process(part):
    """A source that another process reads otherwise, as if the machines had different caches."""
    colour = "red" if os.environ["RANK"] == "0" else "blue"
    return [
        Row(id=f"{i}", prompt="knife", response="sorry", chosen="sorry", rejected=f"knife {colour}") for i in range(4)
    ]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("way", ["launched", "called"])
def test_several_processes_answer_for_a_run_however_it_is_started(tiny, tmp_path, cache, monkeypatch, way):
    """Each of them imports the script again that was started."""
    monkeypatch.setitem(ENVIRONMENT, "XDG_CACHE_HOME", str(cache))
    file = write_rows(tmp_path / "data", n=5)
    expected = {row.id: row.harmful_response for row in data(tiny("llava"), file).rows}
    (path,) = (cache / "vsil-align" / "answers").glob("*.jsonl")
    path.unlink()
    more = [f"output_dir={tmp_path / 'run'}", "train.max_steps=1", "suite=null", "generation.num_processes=2"]
    arguments = settings(tiny("llava"), file, *more)
    command = train_command(*arguments) if way == "launched" else align("train", *arguments)
    done = call(command, tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line["row"]: line["response"] for line in stored(cache)} == expected
