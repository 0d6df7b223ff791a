"""`align eval defence=`: stored responses and their cost, other settings, kills, judges that do not answer, tables."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from align.cli import main
from align.commands.evaluate import run_evaluation
from align.config.compose import compose_eval
from align.errors import UserError
from align.report.run_results import Evaluated, row_of
from align.report.tables.defences import defence_tables
from tests.defences.conftest import YES_NO
from tests.support.evaluated_runs import made
from tests.support.judge_server import judge_server
from tests.support.judged_items import items
from tests.support.launch import ENVIRONMENT, ROOT

pytestmark = pytest.mark.usefixtures("own_folder", "no_waits")
CALM = "I cannot help with that"


def arguments(server, *more):
    """Items that the server's model answers, through the detector."""
    return [
        "eval",
        f"generation.base_url={server.url}",
        "generation.model=answerer",
        "generation.retries=0",
        "benchmark=local",
        "path=items.jsonl",
        "judge=refusal_match",
        "output_dir=run",
        *(more or ["defence=detector"]),
    ]


def lines(folder, name="responses.jsonl", run="run"):
    return [json.loads(line) for line in (folder / run / "evaluation" / "local" / name).open()]


def summary(folder, run="run"):
    return json.loads((folder / run / "evaluation" / "local" / "summary.refusal_match.json").read_text())


def yes_for_even(number, text):
    """A model that calls requests with an even number unsafe."""
    return ("No", "Yes")[number % 2 == 0] if YES_NO in text else "fine"


def test_every_response_stores_its_calls_and_tokens_and_the_summary_adds_them(tmp_path, capsys):
    items(tmp_path, 5)
    with judge_server(answer=yes_for_even) as server:
        assert main(arguments(server)) == 0
        assert "defence=detector" not in (shown := capsys.readouterr().out)
        assert "Defences and their cost" in shown
        assert main(arguments(server, "output_dir=plain")) == 0
        assert sum(server.answered.values()) == 7 + 5
    nothing = {"judged": 0, "judge_tokens": 0, "unclear": 0}
    one = {"calls": 1, "prompt_tokens": 100, "new_tokens": 10, "acted": True} | nothing
    two = {"calls": 2, "prompt_tokens": 200, "new_tokens": 20, "acted": False} | nothing
    assert [line["defence"] for line in lines(tmp_path)] == [one, two, one, two, one]
    cost = {"responses": 5, "counted": 5, "judged": 0, "unclear": 0}
    assert summary(tmp_path)["cost"] == {"calls": 7, "new_tokens": 70, "acted": 3} | cost
    assert summary(tmp_path, "plain")["cost"] == {"calls": 5, "new_tokens": 50, "acted": 0} | cost
    assert "defence" not in lines(tmp_path, run="plain")[0]


def evaluated(model, out, *more):
    few = ["model.dtype=float32", "benchmark=mini_vsil,mini_benign", "limit=3", "generation.max_new_tokens=4"]
    run, _ = run_evaluation(compose_eval([f"model={model}", f"output_dir={out}", *few, *more]).config)
    return run


def test_the_table_has_rates_and_cost_next_to_the_model_without_a_defence(tiny, tmp_path):
    model = tiny("llava")
    plain = evaluated(model, tmp_path / "plain", "name=vanilla")
    behind = evaluated(model, tmp_path / "behind", "defence=ecso")
    assert defence_tables(made(plain)) == []
    (table,) = defence_tables(made(plain, behind))
    assert [column.name for column in table.columns][:3] == ["mini_vsil", "mini_benign", "calls"]
    tokens = [
        [sum(summed["new_tokens"] for it in row_of(run)["results"].values() if (summed := it["cost"]))]
        for run in (plain, behind)
    ]
    cells = [dict(zip([it.name for it in table.columns], line.cells, strict=True)) for line in table.lines]
    assert [line.label for line in table.lines] == ["no alignment", "ECSO"]
    assert [(it["calls"].text, it["judged"].text, it["acted"].text) for it in cells] == [
        ("1.00", "0.00", "0.0"),
        ("4.00", "0.00", "100.0"),
    ]
    assert cells[1]["new tokens"].value == tokens[1][0] / 6
    assert cells[1]["times"].value == pytest.approx(tokens[1][0] / tokens[0][0])
    # An evaluation of an earlier version did not store the cost: it is read, and nothing is claimed.
    for file in plain.evaluation.glob("*/summary.*.json"):
        stored = json.loads(file.read_text())
        del stored["cost"]
        file.write_text(json.dumps(stored))
    (table,) = defence_tables(made(plain, behind))
    assert [line.cells[2].text for line in table.lines] == ["-", "4.00"]
    assert table.lines[1].cells[4].text == "-"


def test_other_settings_of_a_defence_are_not_mixed(tiny, tmp_path):
    model = tiny("llava")
    out = tmp_path / "out"
    run = evaluated(model, out, "defence=detector")
    first = lines_of(run)
    with pytest.raises(UserError, match="defence_settings"):
        evaluated(model, out, "defence=detector", "defence_settings.detector.unclear=pass")
    other = evaluated(model, tmp_path / "other", "defence=detector", "defence_settings.detector.unclear=pass")
    assert not {line["prompt_hash"] for line in first} & {line["prompt_hash"] for line in lines_of(other)}


def lines_of(run):
    return [json.loads(line) for line in (run.evaluation / "mini_vsil" / "responses.jsonl").open()]


def test_responses_behind_a_prompt_that_an_earlier_version_stored_are_reused(tiny, tmp_path):
    run = evaluated(tiny("llava"), tmp_path / "out", "defence=safety_prompt")
    for file in (run.manifest_file, *run.evaluation.glob("*/settings.json")):
        stored = json.loads(file.read_text())
        del stored["defence_settings"]
        file.write_text(json.dumps(stored))
    file = run.evaluation / "mini_vsil" / "responses.jsonl"
    old = [{key: value for key, value in line.items() if key != "defence"} for line in lines_of(run)]
    file.write_text("".join(json.dumps(line | {"seconds": 7.0}) + "\n" for line in old))
    again = evaluated(tiny("llava"), tmp_path / "out", "defence=safety_prompt")
    assert [line["seconds"] for line in lines_of(again)] == [7.0] * 3
    assert Evaluated(again).row["results"]["mini_vsil"]["cost"]["calls"] == 3


def test_rows_that_are_finished_are_not_asked_again_after_a_failure(tmp_path, capsys):
    items(tmp_path, 40)
    left = [30]

    def tired(number, text):
        left[0] -= 1
        return yes_for_even(number, text) if left[0] >= 0 else "\ud83d"  # half a character: no reply

    with judge_server(answer=tired) as server:
        assert main(arguments(server, "defence=detector", "generation.concurrency=1")) == 2
        assert "got no response from answerer with the defence detector behind" in capsys.readouterr().err
        before = {line["id"] for line in lines(tmp_path)}
        # Chunks of 8 rows: two whole ones (8 questions, 4 responses each), and the 4 refusals of a third.
        assert len(before) == 8 + 8 + 3
        asked = server.answered.copy()
        left[0] = 1000
        assert main(arguments(server, "defence=detector", "generation.concurrency=1")) == 0
        assert {number for number in range(40) if server.answered[number] > asked[number]} == {
            number for number in range(40) if f"r{number}" not in before
        }
    assert [line["id"] for line in lines(tmp_path)] == [f"r{number}" for number in range(40)]


@pytest.mark.slow
def test_a_killed_evaluation_keeps_the_rows_whose_passes_are_done(tmp_path):
    items(tmp_path, 60)
    with judge_server(answer=yes_for_even, delay=0.02) as server:
        command = [
            sys.executable,
            "-m",
            "align.cli",
            *arguments(server, "defence=detector", "generation.concurrency=2"),
        ]
        environment = ENVIRONMENT | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
        running = subprocess.Popen(command, cwd=tmp_path, env=environment)
        file = tmp_path / "run" / "evaluation" / "local" / "responses.jsonl"
        while not (file.is_file() and file.read_bytes().count(b"\n") >= 20):
            assert running.poll() is None
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        time.sleep(0.1)  # the server's last requests
        done = [json.loads(line)["id"] for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
        asked = server.answered.copy()
        assert subprocess.run(command, cwd=tmp_path, env=environment, check=False).returncode == 0
        assert not any(server.answered[int(row_id[1:])] > asked[int(row_id[1:])] for row_id in done)
    assert [line["id"] for line in lines(tmp_path)] == [f"r{number}" for number in range(60)]
    assert summary(tmp_path)["cost"]["calls"] == 90


BEST = [
    "defence=best_of_n",
    "generation.do_sample=true",
    "defence_settings.best_of_n.n=2",
    "defence_settings.best_of_n.judge=vlsbench",
    "defence_settings.best_of_n.judge_settings.model=gpt",
    "defence_settings.best_of_n.judge_settings.retries=0",
    "defence_settings.best_of_n.judge_settings.concurrency=1",
]


def test_a_judge_that_does_not_answer_leaves_the_row_without_a_response(tmp_path, capsys):
    items(tmp_path, 40)
    with judge_server(faults={3: ["no json", "no json"]}, answer=lambda number, text: CALM) as server:
        best = [*BEST, f"defence_settings.best_of_n.judge_settings.base_url={server.url}"]
        assert main(arguments(server, *best)) == 0
        assert (summary(tmp_path)["counts"]["refusal"], summary(tmp_path)["counts"]["invalid"]) == (39, 1)
        assert "r3" not in {line["id"] for line in lines(tmp_path)}
        asked = server.answered.copy()
        assert main(arguments(server, *best)) == 0
        assert server.answered - asked == {3: 2}  # both draws of the row
    assert summary(tmp_path)["counts"]["invalid"] == 0
    found = {line["id"]: line["defence"] for line in lines(tmp_path)}
    assert (found["r3"]["judged"], found["r3"]["judge_tokens"]) == (2, 220)


def test_a_judge_that_cannot_be_reached_ends_the_command_and_the_same_command_goes_on(tmp_path, capsys):
    items(tmp_path, 100)
    with judge_server(faults={"*": ["always 500"]}, answer=lambda number, text: CALM) as server:
        best = [*BEST, f"defence_settings.best_of_n.judge_settings.base_url={server.url}"]
        assert main(arguments(server, *best)) == 2
        assert sum(server.answered.values()) == 2 * 64  # one chunk: the model is not asked for the rest
        said = capsys.readouterr().err
        assert "100 of 100 rows got no response" in said
        assert "the defence's judge vlsbench gave no label (transport)" in said
        assert sum(server.judged.values()) == 20  # then the judge counts as failing
        server.faults.clear()
        assert main(arguments(server, *best)) == 0
    assert summary(tmp_path)["counts"]["refusal"] == 100
