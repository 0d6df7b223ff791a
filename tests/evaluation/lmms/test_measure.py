"""A task of lmms_eval is measured once, in a child that ends with us; what fails is an error that says what it said."""

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from align.cli import main
from align.report.run_results import row_of
from align.run_folder import RunFolder
from tests.support.launch import ENVIRONMENT, align

SECRET = "sk-0123456789abcdef"


@pytest.fixture
def folder(tmp_path):
    """Where the results of tasks are."""
    return tmp_path / "run" / "evaluation" / "lmms_eval"


def test_values_stand_in_folder_and_tables_in_their_own_units(evaluation, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    assert main(evaluation("mme,pope", "benchmark=mini_vsil", "limit=3", "generation.max_new_tokens=2")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "mme_perception_score │ 1511.5 │ 2374" in shown
    assert "pope_accuracy │ 0.8750 +- 0.0109" in shown
    assert "Measured by lmms_eval 0.0.1" in shown
    assert "lmms_eval: pope: submission is not a number: None" in shown
    assert "lmms_eval: pope: 1 of 3 responses are empty" in shown

    row = row_of(RunFolder(tmp_path / "run"))
    assert list(row["results"]) == ["mini_vsil"]
    assert [metric["metric"] for metric in row["external"]["mme"]["metrics"]] == [
        "mme_perception_score",
        "mme_cognition_score",
    ]
    pope = row["external"]["pope"]
    assert (pope["kind"], pope["version"]) == ("ability", "0.0.1")
    assert pope["metrics"][0] == {
        "set": "pope",
        "metric": "pope_accuracy",
        "filter": "none",
        "value": 0.875,
        "stderr": 0.0109,
        "n": 2374,
        "higher_is_better": None,
    }
    assert {metric["stderr"] for metric in row["external"]["mme"]["metrics"]} == {
        None
    }  # an item's is not that of a sum

    assert main(["table", f"runs={tmp_path}", "format=csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line["set"] for line in lines] == ["mini_vsil"] * 2 + ["mme"] * 2 + ["pope"] * 2
    assert (lines[2]["metric"], lines[2]["value"], lines[2]["rate"], lines[2]["low"]) == (
        "mme_perception_score",
        "1511.5",
        "",
        "",
    )
    assert main(["table", f"runs={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "| paper | " in shown
    assert "| mme | mme_perception_score | 1511.5 | 2374 |" in shown

    log = (folder / "mme" / "log.txt").read_text()
    assert "asked for mme with <SOME_API_KEY>" in log
    assert "Model Responding: 100%" in log
    written = [file.read_text() for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert not any(SECRET in text for text in written)
    assert sorted(path.name for path in folder.iterdir()) == ["mme", "pope"]  # the model it loaded is gone


def test_columns_of_our_own_sets_are_what_they_were(evaluation, tmp_path, capsys):
    ours = ["benchmark=mini_vsil", "limit=3", "generation.max_new_tokens=2"]
    tables = []
    for name, tasks in (("without", "[]"), ("with", "mme")):
        assert main([*evaluation(tasks, *ours), f"output_dir={tmp_path / name}"]) == 0
        capsys.readouterr()
        assert main(["table", f"runs={tmp_path / name}"]) == 0
        tables.append(capsys.readouterr().out)
    (without, beside) = (next(line for line in text.splitlines() if line.startswith("| paper |")) for text in tables)
    assert beside.startswith(without.removesuffix(" |"))
    assert "Ability by lmms_eval" in tables[1]
    assert "Ability by lmms_eval" not in tables[0]


def test_what_was_measured_is_not_measured_again(evaluation, folder, capsys):
    assert main(evaluation("mme", "lmms_eval.limit=8")) == 0
    before = (folder / "mme" / "summary.json").stat().st_mtime_ns
    capsys.readouterr()
    gone = "lmms_eval.command=/there/is/no/such/program"  # nor asked for
    assert main([*evaluation("mme", "lmms_eval.limit=8"), gone]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "lmms_eval mme: already measured" in shown
    assert "mme_perception_score │ 1511.5 │ 8" in shown
    assert "lmms_eval: mme: only the first 8 rows" in shown
    assert (folder / "mme" / "summary.json").stat().st_mtime_ns == before
    assert main(evaluation("mme")) == 2
    assert "mme contains another evaluation: its limit is 8, expected null" in capsys.readouterr().err
    assert main(evaluation("mme", "lmms_eval.limit=8", "model.system_prompt=careful")) == 2
    assert "its system_prompt is null" in capsys.readouterr().err
    assert main(evaluation("mme,pope", "lmms_eval.limit=8", "dry_run=true")) == 0
    assert capsys.readouterr().out.splitlines() == ["lmms_eval mme: already measured", "lmms_eval pope: to be measured"]


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("breaks", ["lmms_eval ended with status 3", "a first line\nRuntimeError: out of luck", "--tasks breaks"]),
        ("silent", ["ended with status 0, but there is no *results*.json in", "ValueError: Tasks not found: silent"]),
        (
            "odd",
            [
                "20261122_060338_results.json: no number under a key 'metric,filter' of results; found results.odd: "
                "alias, accuracy"
            ],
        ),
        ("listed", ["results.json: results: expected {task: {'metric,filter': value}}; found [0.5]"]),
        (
            "half",
            [
                "lmms_eval skipped 1 items with errors",
                "Error no memory",
            ],
        ),
    ],
)
def test_what_fails_says_why_and_leaves_no_number(evaluation, folder, task, said, capsys):
    assert main(evaluation(f"mme,{task}")) == 2
    shown = capsys.readouterr().err
    for words in said:
        assert words in shown
    assert not (folder / task / "summary.json").exists()
    assert (folder / "mme" / "summary.json").is_file()  # the task before it is not lost
    assert sorted(path.name for path in folder.iterdir()) == sorted(["mme", task])


def test_what_is_lacking_is_known_before_the_first_answer(evaluation, tmp_path, capsys):
    ours = ["benchmark=mini_vsil", "limit=3"]
    nowhere = {"/there/is/no/such/program": "No such file", f"{sys.executable} -m no_such_module": "No module named"}
    for command, said in nowhere.items():
        assert main([*evaluation("mme", *ours), f"lmms_eval.command={command}"]) == 2
        shown = capsys.readouterr().err
        assert "cannot be started" in shown
        assert said in shown
        assert "lmms_eval.command='<its python> -m lmms_eval'" in shown
        assert not list((tmp_path / "run").rglob("responses.jsonl"))


def test_a_model_behind_an_address_or_a_prompt_is_not_measured(evaluation, capsys):
    address = ["generation.base_url=http://localhost:9/v1", "generation.model=m"]
    assert main(["eval", *address, "lmms_eval.tasks=mme"]) == 2
    assert "lmms_eval loads a checkpoint itself" in capsys.readouterr().err
    ours = ["benchmark=mini_vsil", "limit=2", "generation.max_new_tokens=2"]
    assert main(evaluation("mme", *ours, "defence=safety_prompt")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "lmms_eval: skipped with defence=safety_prompt" in shown
    assert "Ability by lmms_eval" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.long
def test_the_child_ends_with_us(evaluation, folder, number):
    process = subprocess.Popen(
        align(*evaluation("hangs")), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    started, end = folder / "hangs" / "started", time.monotonic() + 60
    while not started.exists() or not started.read_text():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.05)
    child, beside, model = started.read_text().split()
    assert Path(model).is_dir()
    process.send_signal(number)
    assert process.wait(timeout=30) == (130 if number == signal.SIGINT else -signal.SIGTERM)
    process.stdout.close()
    assert not psutil.pid_exists(int(child))
    assert not psutil.pid_exists(int(beside)) or psutil.Process(int(beside)).status() == psutil.STATUS_ZOMBIE
    assert [path.name for path in folder.iterdir()] == ["hangs"]  # the model it loaded is gone
    assert not (folder / "hangs" / "summary.json").exists()


def test_seeds_are_a_mean_without_an_error_of_its_own(evaluation, tmp_path):
    from align.report.arms import arms_of
    from align.report.lmms_results import cells
    from align.report.run_results import Evaluated

    assert main(evaluation("pope")) == 0
    run = RunFolder(tmp_path / "run")
    second = RunFolder(shutil.copytree(run.path, tmp_path / "second"))
    run.record(method="sft")  # of what is not trained a seed changes nothing
    second.record(method="sft", seed=1)
    file = second.evaluation / "lmms_eval" / "pope" / "summary.json"
    summary = json.loads(file.read_text())
    summary["metrics"][0]["value"] = 0.625
    file.write_text(json.dumps(summary))
    (arm,), _ = arms_of([Evaluated(run), Evaluated(second)])
    metric = arm.row["external"]["pope"]["metrics"][0]
    assert (metric["value"], metric["stderr"], metric["by_seed"]) == (0.75, None, [0.875, 0.625])
    assert cells(metric) == ["pope", "pope_accuracy", "0.7500 (mean of 0.8750, 0.6250)", "2374"]
    shutil.rmtree(file.parent)
    (arm,), _ = arms_of([Evaluated(run), Evaluated(second)])
    assert arm.row["external"] == {}
