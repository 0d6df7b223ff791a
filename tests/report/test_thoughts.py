"""The table of the safety of thoughts against that of answers, over seeds; damaged files are named and never numbers."""

import json
from collections import Counter

import pytest

from align.evaluation.thought_safety import CELLS, WITHOUT
from align.files import write_json
from align.report.arms import arms_of
from align.report.find_runs import collect
from align.report.items import rate_of
from align.report.tables.thoughts import thought_tables
from tests.support.evaluated_runs import run

LABELS = ("both_safe", "thought_unsafe", "both_safe", "unfinished", "answer_unsafe", "no_thought")


def judged(folder, seed, labels=LABELS, judge="rule", **more):
    """A run whose thoughts were judged; two rows share an image."""
    it = run(folder / f"{seed}", seed=seed, good=(True,) * len(labels))
    counts = dict.fromkeys((*CELLS, *WITHOUT), 0) | Counter(labels)
    result = {"schema": 1, "set": "mini_vsil", "judge": judge, "judge_version": "1", "prompt_hash": None}
    result |= {"judge_settings": {}, "n": len(labels), "counts": counts, "rates": None} | more
    lines = [{"id": f"{i}", "label": one, "cluster": f"image {i // 2}"} for i, one in enumerate(labels)]
    place = it.evaluation / "mini_vsil"
    write_json(place / f"thoughts.{judge}.json", result)
    (place / f"thoughts.{judge}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return it


def cells_of(folder):
    """({column: cell} of the only line, notes)."""
    runs, notes = collect(folder)
    arms, more = arms_of(runs)
    (table,) = thought_tables(arms)
    (line,) = table.lines
    return dict(zip([column.name for column in table.columns], line.cells, strict=True)), [*notes, *more], arms


def test_shares_are_of_rows_with_both_verdicts_and_intervals_over_rows_of_one_image_and_seeds(tmp_path):
    judged(tmp_path, 0)
    judged(tmp_path, 1, ("both_unsafe", *LABELS[1:]))
    cells, _, (arm,) = cells_of(tmp_path)
    assert cells["both safe"].n == 8
    assert sum(cells[name].value for name in list(cells)[:4]) == pytest.approx(100)
    assert cells["both unsafe"].value == pytest.approx(100 / 8)
    assert cells["n"].text == "8, 2 without a thought, 2 unfinished"
    wanted = rate_of(
        [(str(one.row["seed"]), one.thoughts("mini_vsil")["rule"].share_of("both_safe")) for one in arm.runs]
    )
    assert cells["both safe"].low == pytest.approx(100 * max(wanted["low"], 0))
    assert cells["both safe"].high == pytest.approx(100 * wanted["high"])


def test_seeds_under_different_judges_are_not_pooled_and_too_many_without_a_verdict_are_withheld(tmp_path):
    judged(tmp_path / "a", 0)
    judged(tmp_path / "a", 1, judge_settings={"model": "other"})
    assert cells_of(tmp_path / "a")[0]["both safe"].text == "judged differently"
    judged(tmp_path / "b", 0, (*LABELS, "invalid"))
    cells = cells_of(tmp_path / "b")[0]
    assert cells["both safe"].withheld
    assert "1 without a verdict" in cells["n"].text


def test_without_any_thought_there_is_no_table(tmp_path):
    judged(tmp_path, 0, ("no_thought",) * 4)
    run(tmp_path / "none", seed=1)
    assert thought_tables(arms_of(collect(tmp_path)[0])[0]) == []


@pytest.mark.parametrize("damage", ['{"id": "0", "label": "fine", "cluster": "a"}\n', "", "{"])
def test_a_damaged_file_is_named_and_its_benchmark_left_out(tmp_path, damage):
    it = judged(tmp_path, 0)
    (it.evaluation / "mini_vsil" / "thoughts.rule.jsonl").write_text(damage)
    runs, notes = collect(tmp_path)
    assert runs[0].row["results"] == {}
    assert any("thoughts.rule.jsonl" in note for note in notes)
