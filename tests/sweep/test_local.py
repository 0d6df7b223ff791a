"""A sweep on this machine, for real: tiny models, processes of their own, kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from align.cli import main
from align.files import read_jsonl
from align.run_folder import RunFolder
from align.sweep.folder import SweepFolder

SMALL = [
    *("suite=miniature", "data.harmful.rows=24", "data.benign.rows=24", "global_batch_size=8", "model.dtype=float32"),
    *("train.max_steps=4", "train.learning_rate=1e-2", "train.save_steps=100", "train.logging_steps=1"),
    *("evaluate.benchmark=mini_benign", "evaluate.settings.mini_benign.limit=6", "launch.config=cpu", "hours=false"),
]


@pytest.fixture
def typed(tiny, tmp_path):
    """A function: further arguments -> those of a small sweep of one recipe in a folder of the test."""
    return lambda *more: [
        f"model={tiny('llava')}",
        *SMALL,
        f"output_dir={tmp_path / 'sweep'}",
        *(more or ["recipe=mm_sft"]),
    ]


def rows(tmp_path):
    return SweepFolder(tmp_path / "sweep").read().rows


@pytest.mark.long
@pytest.mark.slow
def test_a_failing_run_does_not_stop_the_rest_and_the_same_command_does_what_is_left(typed, tmp_path, capsys):
    words = typed("recipe=mm_sft", "seed=0,1", "at_once=2")
    assert main(["sweep", *words, "dry_run=true"]) == 0
    assert not (tmp_path / "sweep").exists()
    path = next(line.partition("output_dir=")[2] for line in capsys.readouterr().out.splitlines() if "seed=1" in line)
    bad = RunFolder(type(tmp_path)(path))
    bad.path.mkdir(parents=True)
    bad.manifest_file.write_text(json.dumps({"fingerprint": "another run"}))
    assert main(["sweep", *words]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "2 done, 1 failed" in said  # with the model as it is
    assert "another run: its fingerprint is" in said
    assert "| MM-SFT | SFT | 0 | 4 |" in (tmp_path / "sweep/table.md").read_text()
    bad.manifest_file.unlink()
    assert main(["sweep", *words]) == 0
    began = {
        row.path.name: sum("began" in event for event in read_jsonl(row.path / "jobs.jsonl")) for row in rows(tmp_path)
    }
    assert sorted(began.values()) == [1, 2, 3]  # the model as it is; trained and evaluated; the same after a failure
    assert "| MM-SFT | SFT | 0,1 | 4 |" in (tmp_path / "sweep/table.md").read_text()
    capsys.readouterr()
    assert main(["sweep", f"output_dir={tmp_path / 'sweep'}", "status=true"]) == 0
    assert "3 done" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.long
def test_settings_are_chosen_by_validation_and_only_the_chosen_are_reported(typed, tmp_path, capsys):
    tune = ["train.learning_rate=0.0,3e-2", "tune=train.learning_rate", "validate.benchmark=mini_benign"]
    validation = ["validate.settings.mini_benign.subset=validation", "validate.settings.mini_benign.limit=6"]
    small = [word for word in typed("recipe=mm_sft", "at_once=2") if not word.startswith("train.learning_rate")]
    assert main(["sweep", *small, *tune, *validation]) == 0
    folder = SweepFolder(tmp_path / "sweep")
    [cell] = json.loads((folder.path / "chosen.json").read_text())["cells"]
    assert [candidate["rates"]["0"].keys() for candidate in cell["candidates"]] == [{"mini_benign"}] * 2
    runs = {
        row.axes["train.learning_rate"]: RunFolder(row.path)
        for row in folder.read().rows
        if "train.learning_rate" in row.axes
    }
    chosen = cell["chosen"]["train.learning_rate"]
    for value, run in runs.items():
        validated = run.validation.evaluation / "mini_benign"
        assert json.loads((validated / "settings.json").read_text()) != {}
        asked = {line["id"] for line in read_jsonl(validated / "responses.jsonl")}
        reported = run.evaluation / "mini_benign/responses.jsonl"
        assert reported.is_file() == (value == chosen)
        if reported.is_file():
            assert asked.isdisjoint(line["id"] for line in read_jsonl(reported))
    table = (folder.output_dir / "table.md").read_text()
    assert table.count("MM-SFT, train.learning_rate") >= 1
    assert f"train.learning_rate={chosen} chosen by validation (mean rate % " in table


def children(of):
    return [
        p
        for p in psutil.process_iter(["cmdline"])
        if of in " ".join(p.info["cmdline"] or ()) and "train" in " ".join(p.info["cmdline"])
    ]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_sweep_that_is_killed_goes_on_and_trains_nothing_twice(typed, tmp_path, number):
    """Killed hard, its runs live on, and the next one waits for them; asked to stop, they save themselves."""
    small = [word for word in typed() if not word.startswith(("train.max_steps", "train.save_steps"))]
    words = [sys.executable, "-m", "align.cli", "sweep", *small, "train.max_steps=60", "train.save_steps=500"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    sweep = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "sweep").glob("*/mm_sft*/steps.jsonl")):
        assert time.monotonic() < deadline
        assert sweep.poll() is None, sweep.stdout.read()
        time.sleep(0.2)
    sweep.send_signal(number)
    said = sweep.communicate(timeout=120)[0] if number == signal.SIGTERM else sweep.wait(timeout=20)
    if number == signal.SIGTERM:
        assert sweep.returncode == 75, said
        assert not children(str(tmp_path / "sweep"))
    else:
        assert children(str(tmp_path / "sweep"))  # nobody told them
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunFolder(next((tmp_path / "sweep").glob("*/mm_sft*")))
    assert [line["step"] for line in read_jsonl(run.steps_file)] == list(range(1, 61))
    trained = [event for event in read_jsonl(run.path / "jobs.jsonl") if event["stage"] == "train"]
    assert [event.get("status") for event in trained] == ([None, 75, None, 0] if number == signal.SIGTERM else [None])


def test_two_sweeps_in_one_folder_are_refused(typed, tmp_path, capsys):
    folder = SweepFolder(tmp_path / "sweep")
    with folder.locked():
        assert main(["sweep", *typed()]) == 2
    assert "another `align sweep` is running here" in capsys.readouterr().err


def test_what_goes_with_a_folder_alone(tmp_path, capsys):
    for words, said in (
        (["status=true"], "found no sweep"),
        (["finish=true"], "found no sweep"),
        ([], "recipe= and grid= are missing"),
        (["seed=0,1"], "recipe= and grid= are missing"),
        (["recipe=t_sft", "finish=true"], "Give it with output_dir= alone"),
    ):
        assert main(["sweep", f"output_dir={tmp_path}", *words]) == 2
        assert said in capsys.readouterr().err
