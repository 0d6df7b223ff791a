"""Tables from run folders alone; a damaged folder is named, never guessed."""

import csv
import io
import json
import re

import pytest

from align.cli import main
from align.evaluation.metrics import wilson
from align.files import write_json
from align.report.names import measured
from align.report.run_results import Evaluated
from align.report.tables.all_tables import tables_of
from align.report.tables.delimited import comma_separated
from align.report.tables.terminal import print_tables
from tests.support.evaluated_runs import WHY, rows_of, run, second_judge, shown
from tests.support.evaluated_runs import made as arms


def test_a_table_in_every_format(tmp_path, capsys):
    run(tmp_path / "a")
    run(tmp_path / "b", name="mm_sft", view="image", good=(True,) * 4)
    assert main(["table", f"runs={tmp_path}", "format=json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == ["t_sft", "mm_sft"]
    wanted = {
        "track",
        "model",
        "name",
        "method",
        "view",
        "seed",
        "steps",
        "trainable_parameters",
        "seconds",
        "peak_memory_mib",
        "variant",
        "tuning",
        "defence",
        "stopped",
        "results",
        "external",
    }
    assert set(rows[0]) == wanted
    assert main(["table", f"runs={tmp_path}", "format=csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(line["arm"], line["rate"]) for line in lines] == [("T-SFT", "0.75"), ("MM-SFT", "1.0")]
    assert main(["table", f"runs={tmp_path}", f"output={tmp_path / 'table.md'}"]) == 0
    text = (tmp_path / "table.md").read_text()
    assert "| paper | m | T-SFT | SFT | 0 | 3 | 75.0 [75.0, 75.0] n=4<br>refusal 3, unsafe 1 |" in text
    assert "- a fact" in text
    assert main(["table", f"runs={tmp_path}", "format=pdf"]) == 2


def test_a_run_that_an_earlier_version_evaluated_is_no_damaged_one(tmp_path):
    """Its summaries do not say what the judge made of incoherent answers, and its second seed's are
    not counted together.
    """
    runs = [run(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    for it in runs:
        file = it.evaluation / "mini_vsil" / "summary.rule.json"
        summary = json.loads(file.read_text())
        del summary["as_judged"]
        write_json(file, summary)
    rows, notes = rows_of(tmp_path)
    assert ([row["results"]["mini_vsil"]["rate"] for row in rows], notes) == ([0.75, 0.75], [])
    assert "75.0 [75.0, 75.0] n=4" in shown(runs[0])
    assert arms(*runs)[0].row["results"]["mini_vsil"]["as_judged"] is None


def test_a_withheld_headline_is_shown_as_withheld_with_its_bounds(tmp_path):
    text = shown(run(tmp_path, invalid=4))
    assert "withheld (37.5-100.0) n=4 of 8<br>refusal 3, unsafe 1, invalid 4 (timeout 4)" in text


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (lambda it: it.manifest_file.write_text("{"), "damaged: .*JSON"),
        (lambda it: it.record(status="running"), "not finished"),
        (lambda it: (it.evaluation / "mini_vsil" / "summary.rule.json").write_text('{"main": true}'), "damaged"),
        (
            lambda it: (it.evaluation / "mini_vsil" / "summary.rule.json").unlink(),
            "not evaluated yet.* align eval run=",
        ),
    ],
)
def test_a_damaged_run_is_named_in_the_notes(tmp_path, damage, note):
    run(tmp_path / "whole")
    damage(run(tmp_path / "hurt"))
    rows, notes = rows_of(tmp_path)
    assert any(row["results"] for row in rows)
    assert len(notes) == 1
    assert "hurt" in notes[0]
    assert re.search(note, notes[0])


def test_items_without_a_verdict_are_left_out_of_paired_differences(tmp_path):
    items = Evaluated(run(tmp_path, good=(True, False), invalid=2)).items("mini_vsil").valid
    assert list(zip(items.ids, items.good, strict=True)) == [("0", True), ("1", False)]


def test_seeds_of_an_arm_become_one_row_with_an_interval_over_items_and_seeds(tmp_path):
    seeds = [(True,) * 36 + (False,) * 4, (True,) * 32 + (False,) * 8, (True,) * 28 + (False,) * 12]
    (arm,) = arms(*(run(tmp_path / str(i), good=good, seed=i) for i, good in enumerate(seeds)))
    result = arm.row["results"]["mini_vsil"]
    assert (arm.row["seed"], result["n"], result["counts"]["refusal"]) == ("0,1,2", 120, 96)
    assert result["rate"] == pytest.approx(0.8)
    low, high = wilson(96, 120)
    assert result["high"] - result["low"] > 1.5 * (high - low)  # the seeds differ more than items alone would make them


def test_a_stopped_run_is_marked_in_every_table(tmp_path, capsys):
    runs = [run(tmp_path / "0", seed=0, steps=2, stopped=WHY), run(tmp_path / "1", seed=1)]
    rows, notes = rows_of(tmp_path)
    assert [(row["steps"], row["stopped"]) for row in rows] == [(2, WHY), (3, None)]
    assert notes == [f"{tmp_path / '0'}: {WHY}"]
    assert main(["table", f"runs={tmp_path}", "seeds=apart"]) == 0
    text = capsys.readouterr().out
    assert "| T-SFT | SFT | 0 | 2 (stopped) |" in text
    assert "| T-SFT | SFT | 1 | 3 |" in text
    assert f"- {tmp_path / '0'}: {WHY.replace('<', '&lt;')}" in text
    lines = list(csv.DictReader(io.StringIO(comma_separated(rows))))
    assert [(line["steps"], line["stopped"]) for line in lines] == [("2", WHY), ("3", "")]
    print_tables(tables_of([*arms(runs[0]), *arms(runs[1])], []))
    assert "T-SFT seed 0 (stopped)" in capsys.readouterr().out
    (both,) = arms(*runs)
    assert (both.row["steps"], both.row["most_steps"], both.row["stopped"]) == (2, 3, f"seed 0 {WHY}")
    assert "| T-SFT | SFT | 0,1 | 2-3 (stopped) |" in shown(*runs)


def test_a_set_that_is_withheld_under_one_seed_is_withheld(tmp_path):
    runs = [run(tmp_path / "0", seed=0), run(tmp_path / "1", seed=1, invalid=4)]
    result = arms(*runs)[0].row["results"]["mini_vsil"]
    assert (result["rate"], result["n"], result["counts"]["invalid"]) == (None, 12, 4)
    assert result["bounds"]["low"] == pytest.approx(6 / 12)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("vsil_free", "refused"),
        ("benign", "not refused"),
        ("twin", "only the unsafe refused"),
        ("ability", "not refused"),
    ],
)
def test_a_word_list_is_not_said_to_measure_safety(kind, word):
    assert measured({"kind": kind, "judge": "refusal_match"}, {}) == word


def test_a_second_judge_has_a_table_of_its_own(tmp_path, capsys):
    it = run(tmp_path / "a", "mm_sft", "image", [True, True, False, True])
    folder = it.evaluation / "mini_vsil"
    second_judge(folder, ["refusal", "other", "other", "other"])
    assert main(["table", f"runs={tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert "## The same responses under other judges: refusal_match, paper track, %" in text
    assert "mini_vsil (refusal_match): refused % (judge refusal_match 1)" in text
    assert "25.0 [12.5, 62.5] n=4<br>refusal 1, other 3" in text
    assert main(["table", f"runs={tmp_path}", "format=csv"]) == 0
    lines = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert [(line["judge"], line["rate"]) for line in lines] == [("rule", "0.75"), ("refusal_match", "0.25")]
