"""A run in wandb: one over kills, with the numbers of its evaluation, each once; without wandb or
its service an evaluation is whole.
"""

import json
import os
import pty
import subprocess
import sys
import time

import pytest

from align.cli import main
from align.config.compose import compose_run
from align.errors import UserError
from align.files import write_json
from align.interruption import NOTICE, Interrupted
from align.run_folder import RunFolder
from align.tools.publish.wandb_log import log_results
from align.training.run import train
from tests.support.evaluated_runs import run
from tests.support.small_run import arguments
from tests.support.wandb_files import runs_in, table

wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install 'vsil-align[wandb]'")

TRAINING = {"id": "run1", "project": "alignment", "entity": "somebody"}
KEY = "0123456789abcdef" * 3
SETS = {
    "mini_vsil": ("vsil", (True, True, False, True)),
    "mini_vsil_free": ("vsil_free", (False,) * 4),
}


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """Nobody's settings of wandb but these, and none of a test before: it reads its environment once."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    (tmp_path / "wandb").mkdir()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()
    yield
    wandb.teardown()


def test_results_are_numbers_in_the_wandb_run_of_the_training(tmp_path, capsys):
    it = run(tmp_path / "a", sets=SETS, wandb=TRAINING)
    write_json(it.evaluation / "mini_vsil" / "summary.other.json", summary(it) | {"judge": "other", "main": False})
    write_json(it.curve_file, {"schema": 1, "points": [{"step": 2, "results": {"mini_vsil": summary(it)}}]})
    metric = {"set": "pope", "metric": "f1", "filter": "none", "value": 0.9, "stderr": None, "n": 9}
    measured = {"kind": "ability", "program": "lmms_eval", "version": "0.7", "facts": []}
    write_json(
        it.evaluation / "lmms_eval" / "pope" / "summary.json",
        measured | {"metrics": [metric | {"higher_is_better": True}]},
    )
    log_results(it)
    [logged] = runs_in(tmp_path)
    assert (logged.id, logged.project, logged.resume) == ("run1", "alignment", True)
    assert (logged.summary["eval/mini_vsil/rate"], logged.summary["eval/mini_vsil_free/rate"]) == (0.75, 0.0)
    lines = table(logged, "eval/results")
    assert [(line["set"], line["judge"]) for line in lines] == [
        ("mini_vsil", "rule"),
        ("mini_vsil", "other"),
        ("mini_vsil_free", "rule"),
    ]
    counts = json.dumps({"refusal": 3, "unsafe": 1, "incoherent": 0, "invalid": 0})
    assert lines[0] == {
        **{"set": "mini_vsil", "kind": "vsil", "n": 4, "counts": counts, "rate": 0.75, "low": 0.75, "high": 0.75},
        **{"judge": "rule", "judge_version": "1"},
    }
    assert [(line["step"], line["set"], line["rate"]) for line in table(logged, "eval/curve")] == [
        (2, "mini_vsil", 0.75)
    ]
    [other] = table(logged, "eval/external")
    assert other == metric | {"higher_is_better": True, "program": "lmms_eval", "version": "0.7"}
    assert len(list(logged.folder.glob("files/media/images/eval/rates*.png"))) == 1
    assert str(logged.folder) in capsys.readouterr().out


def summary(it):
    return json.loads((it.evaluation / "mini_vsil" / "summary.rule.json").read_text())


def test_a_withheld_rate_is_none(tmp_path):
    it = run(tmp_path / "a", invalid=4, wandb=TRAINING)
    log_results(it)
    [logged] = runs_in(tmp_path)
    assert logged.summary["eval/mini_vsil/rate"] is None
    assert [line["rate"] for line in table(logged, "eval/results")] == [None]


def test_what_is_there_already_is_not_logged_again_and_other_results_are(tmp_path, capsys):
    it = run(tmp_path / "a", wandb=TRAINING)
    log_results(it)
    log_results(it)
    assert len(runs_in(tmp_path)) == 1
    assert capsys.readouterr().out.count("Results logged to wandb") == 1
    assert json.loads(it.wandb_file.read_text()).items() >= {"schema": 1, **TRAINING}.items()
    run(tmp_path / "a", good=(True,) * 4, wandb=TRAINING)
    time.sleep(1)  # wandb names folders by the second
    log_results(it)
    assert [logged.summary["eval/mini_vsil/rate"] for logged in runs_in(tmp_path)] == [0.75, 1.0]
    it.record(wandb=TRAINING | {"id": "trained_anew"})
    log_results(it)
    assert runs_in(tmp_path)[-1].id == "trained_anew"


@pytest.mark.parametrize(
    ("manifest", "results"), [({}, SETS), ({"wandb": TRAINING}, None)], ids=["not tracked", "not judged"]
)
def test_what_is_not_tracked_or_not_judged_is_not_logged(tmp_path, capsys, manifest, results):
    it = run(tmp_path / "a", sets=results, **manifest)
    if results is None:
        (it.evaluation / "mini_vsil" / "summary.rule.json").unlink()
    log_results(it)
    assert not runs_in(tmp_path)
    assert not it.wandb_file.exists()
    assert capsys.readouterr() == ("", "")


def test_disabled_is_not_logged(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    it = run(tmp_path / "a", wandb=TRAINING)
    log_results(it)
    assert not it.wandb_file.exists()
    assert capsys.readouterr() == ("", "")


def unlogged(it, capsys):
    """What is said of results that were not logged: one line, with the command that does it later."""
    log_results(it)
    assert not it.wandb_file.exists()
    out, err = capsys.readouterr()
    lines = (out + err).splitlines()
    assert len(lines) == 1
    assert lines[0].endswith(f"to log them: align eval run={it.path}")
    assert KEY not in lines[0]
    return lines[0]


def test_without_wandb_one_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    said = unlogged(run(tmp_path / "a", wandb=TRAINING), capsys)
    assert "Not logged to wandb: it is not installed (pip install 'vsil-align[wandb]')" in said


def test_a_service_that_does_not_answer_is_not_waited_for_long(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    begun = time.monotonic()
    it = run(tmp_path / "a", wandb=TRAINING)
    unlogged(it, capsys)
    assert time.monotonic() - begun < 15
    assert not [file for file in it.path.rglob("*") if file.is_file() and KEY in file.read_text(errors="replace")]


def test_nobody_is_asked_for_a_key_on_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    it = run(tmp_path / "a", wandb=TRAINING)
    code = "import sys; from pathlib import Path; from align.tools.publish.wandb_log import log_results, RunFolder; "
    code += "log_results(RunFolder(Path(sys.argv[1])))"
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(it.path)],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        env=os.environ | {"TERM": "xterm"},
    )
    try:
        assert child.wait(60) == 0
    finally:
        child.kill()
    assert os.read(ours, 10000).decode().startswith("Not logged to wandb: No API key configured")


EVALUATION = "evaluate={benchmark: [mini_vsil], settings: {mini_vsil: {limit: 4}}, generation: {max_new_tokens: 4}}"


@pytest.mark.slow
@pytest.mark.long
def test_training_killed_and_continued_and_its_evaluation_are_one_wandb_run(tiny, tmp_path, monkeypatch):
    command = arguments(tiny("llava"), tmp_path / "run", EVALUATION, "train.report_to=wandb")
    monkeypatch.setattr(NOTICE, "signal", "SIGTERM")
    with pytest.raises(Interrupted, match="interrupted at step 1 of 6"):
        train(compose_run(command))
    monkeypatch.setattr(NOTICE, "signal", None)
    train(compose_run(command))
    assert wandb.run is None  # ended: an evaluation in this process is no part of it
    it = RunFolder(tmp_path / "run")
    assert main(["eval", f"run={it.path}"]) == 0
    logged = it.wandb_file.read_text()
    assert main(["eval", f"run={it.path}"]) == 0
    assert it.wandb_file.read_text() == logged
    first, second, evaluated = runs_in(tmp_path)
    assert {first.id, second.id, evaluated.id} == {it.manifest()["wandb"]["id"]}
    assert {first.project, second.project, evaluated.project} == {"huggingface"}
    manifest = it.manifest()
    assert first.name == second.name == f"{manifest['model']}-mm_sft-seed0-{manifest['fingerprint']}"
    assert first.config["align"]["recipe"] == "mm_sft"
    losses = [
        (entry["train/global_step"], entry["train/loss"])
        for of in (first, second)
        for entry in of.history
        if "train/loss" in entry
    ]
    lines = [json.loads(line) for line in (it.path / "log.jsonl").open()]
    assert losses == [(line["step"], line["loss"]) for line in lines if "loss" in line]
    assert len(losses) == 6
    assert evaluated.summary["eval/mini_vsil/rate"] == summary(it)["rate"]
    answers = [json.loads(line) for line in (it.evaluation / "mini_vsil" / "responses.jsonl").open()]
    written = "".join(file.read_text(errors="replace") for of in (first, second, evaluated) for file in files_of(of))
    assert not [answer for answer in answers if len(answer["response"]) > 9 and answer["response"] in written]


def files_of(logged):
    return [file for file in logged.folder.rglob("*") if file.is_file()]


def test_training_that_wandb_cannot_begin_says_what_to_do(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    command = arguments(tiny("llava"), tmp_path / "run", "train.report_to=wandb")
    with pytest.raises(UserError, match="train.report_to=wandb: No API key configured.* WANDB_MODE=offline"):
        train(compose_run(command))
