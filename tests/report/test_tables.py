"""The tables: in the paper's layout, its numbers beside ours with what is otherwise, in every format."""

import json
import random
import re

import pytest

from align.cli import main
from align.evaluation.metrics import wilson
from align.files import write_json
from align.report.find_runs import collect
from align.report.findings import findings
from tests.support.evaluated_runs import made, run
from tests.support.table_lines import ABILITY, GUARD, LEAKY, NO, YES, line, table


def test_textual_and_multimodal_arms_stand_in_blocks_below_their_model_in_the_papers_order(tmp_path):
    recipes = {"vanilla": (None, None), "t_dpo": ("dpo", "text"), "mm_sft": ("sft", "image"), "t_sft": ("sft", "text")}
    for name, (method, view) in recipes.items():
        run(tmp_path / name, name=name, method=method, view=view, sets=LEAKY, model="llava_7b")
    found = findings(collect(tmp_path)[0])
    of_track = table(found.arms, "paper")
    assert [(one.group, one.block, one.label) for one in of_track.lines] == [
        ("llava_7b", "not trained here", "no alignment"),
        ("llava_7b", "textual", "T-SFT"),
        ("llava_7b", "textual", "T-DPO"),
        ("llava_7b", "multimodal", "MM-SFT"),
    ]


def test_the_average_of_jailbreakv_is_of_both_ways_of_asking_with_an_interval_over_their_requests(tmp_path):
    (arm,) = made(run(tmp_path, name="mm_sft", view="image", sets=LEAKY, model="llava_7b", judge=GUARD))
    cells = line(table([arm], "paper"), "MM-SFT")
    average = cells["jailbreakv avg"]
    assert average.value == pytest.approx(50.0)  # of 75 and 25
    assert average.low < 45
    assert average.high > 55
    assert average.n == 80
    assert [column.name for column in table([arm], "paper").columns] == [
        "jailbreakv_jailbreak",
        "jailbreakv_raw",
        "jailbreakv avg",
    ]
    assert (average.paper.value, average.paper.doubt) == (81.96, "printed as 81.93; 81.96 is the mean of its cells")


def test_a_half_that_is_withheld_withholds_the_average(tmp_path):
    it = run(tmp_path, sets=LEAKY, model="llava_7b")
    file = it.evaluation / "jailbreakv_raw" / "summary.rule.json"
    write_json(file, json.loads(file.read_text()) | {"rate": None, "low": None, "high": None})
    assert line(table(made(it), "paper"), "T-SFT")["jailbreakv avg"].text == "withheld"


def test_vlsbench_by_refusal_warning_and_unsafe(tmp_path):
    it = run(tmp_path, sets={"vlsbench": ("vsil_free", YES)}, model="llava_7b")
    counts = {"refusal": 2, "warning": 8, "unsafe": 26, "incoherent": 2, "invalid": 2}
    folder = it.evaluation / "vlsbench"
    summary = json.loads((folder / "summary.rule.json").read_text())
    write_json(folder / "summary.rule.json", summary | {"counts": counts, "rate": 10 / 38, "low": 0.1, "high": 0.4})
    labels = [label for label, count in counts.items() for _ in range(count)]
    items = [
        {"id": str(i), "label": label, "good": i < 10, "cluster": str(i), "category": None}
        for i, label in enumerate(labels)
    ]
    (folder / "items.rule.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    cells = line(table([made(it)[0]], "paper-divided-vlsbench"), "T-SFT")
    assert {name: cell.text for name, cell in cells.items()} == {
        "refusal": "5.3",
        "warning": "21.1",
        "unsafe": "68.4",
        "incoherent": "5.3",
        "n": "38, 2 without a verdict",
    }
    assert {name: cell.paper.value for name, cell in cells.items() if cell.paper} == {
        "refusal": 5.3,
        "warning": 8.69,
        "unsafe": 86.01,
    }


CATEGORIES = ["fire"] * 20 + ["water"] * 20


def test_categories_have_rates_with_n_and_intervals_over_seeds(tmp_path):
    sets = {"vlsbench": ("vsil_free", (True,) * 20 + (False,) * 20)}
    (alone,) = made(run(tmp_path / "one", sets=sets, categories=CATEGORIES))
    cells = line(table([alone], "paper-category-vlsbench"), "T-SFT")
    low, high = wilson(20, 20)
    assert (cells["fire"].value, cells["fire"].low, cells["fire"].high, cells["fire"].n) == (
        100,
        100 * low,
        100 * high,
        20,
    )
    assert cells["water"].value == 0
    (both,) = made(*(run(tmp_path / f"two-{seed}", sets=sets, categories=CATEGORIES, seed=seed) for seed in (0, 1)))
    cells = line(table([both], "paper-category-vlsbench"), "T-SFT")
    assert (cells["fire"].value, cells["fire"].n) == (100, 40)
    assert cells["fire"].low < 97


def test_sub_categories_are_read_from_what_was_asked(tmp_path):
    it = run(tmp_path, sets={"vlsbench": ("vsil_free", YES)}, categories=CATEGORIES)
    asked = [{"id": str(i), "columns": {"sub_category": "cold" if i % 4 else "hot"}} for i in range(40)]
    (it.evaluation / "vlsbench" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    cells = line(table(made(it), "paper-sub-category-vlsbench"), "T-SFT")
    assert {name: cell.n for name, cell in cells.items()} == {"cold": 30, "hot": 10}


def test_a_category_with_too_many_answers_without_a_verdict_is_withheld(tmp_path):
    it = run(tmp_path, sets={"s": ("vsil", YES[:20])}, invalid=1, categories=[*CATEGORIES[10:30], "water"])
    cells = line(table(made(it), "paper-category-s"), "T-SFT")
    assert (cells["fire"].value, cells["water"].value, cells["water"].text) == (100, None, "withheld n=10 of 11")


def test_ability_by_lmms_eval_stands_in_the_papers_units(tmp_path):
    it = run(tmp_path, sets={"safebench": ("vsil", YES)}, model="llava_7b")
    for task, metrics in ABILITY.items():
        of_task = [
            {
                "set": task,
                "metric": name,
                "filter": "none",
                "value": value,
                "stderr": None,
                "n": 9,
                "higher_is_better": True,
            }
            for name, value in metrics.items()
        ]
        told = {"kind": "ability", "program": "lmms_eval", "version": "0.7.3", "metrics": of_task, "facts": []}
        write_json(it.evaluation / "lmms_eval" / task / "summary.json", told)
    cells = line(table(made(it), "paper"), "T-SFT")
    shown = {name: (cell.text, cell.paper.value) for name, cell in cells.items() if name != "safebench"}
    assert shown == {
        "mme_cognition": ("340.0", 266.0),
        "mme_perception": ("1500.0", 1362.0),
        "mmmu": ("35.0", 33.89),
        "mmstar": ("33.0", 33.68),
        "mmvet": ("29.5", 30.64),
    }


def test_json_has_rows_arms_comparisons_tables_and_notes(tmp_path, capsys):
    for name, view, free in (("t_sft", "text", NO), ("mm_sft", "image", YES)):
        for seed in (0, 1):
            sets = {"a": ("vsil", YES), "f": ("vsil_free", free)}
            run(tmp_path / f"{name}-{seed}", name=name, view=view, seed=seed, sets=sets)
    assert main(["table", f"runs={tmp_path}", "format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [len(found[key]) for key in ("rows", "arms")] == [4, 2]
    assert [(c["kind"], c["difference"]) for c in found["comparisons"]] == [
        ("difference", 0.0),
        ("difference", 1.0),
        ("interaction", 1.0),
    ]
    assert [one["name"] for one in found["tables"]] == [
        "paper",
        "paper-divided-a",
        "paper-divided-f",
        "paper-differences",
    ]
    assert "MM-SFT compared with T-SFT gives more safe responses" in found["conclusions"][0]
    assert main(["table", f"runs={tmp_path}", "format=json", "tables=differences", "seeds=apart"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert ([one["name"] for one in found["tables"]], len(found["arms"])) == (["paper-differences"], 4)


@pytest.mark.parametrize("argument", ["format=pdf", "seeds=none", "tables=all"])
def test_what_there_is_not_is_refused_with_what_there_is(tmp_path, capsys, argument):
    run(tmp_path / "a")
    assert main(["table", f"runs={tmp_path}", argument]) == 2
    assert re.search(rf"{argument}: expected (one|some) of ", capsys.readouterr().err)


def test_names_with_markup_stay_text_in_markdown(tmp_path, capsys):
    run(tmp_path, name="a|b<img onerror=1>", model="m\nn")
    assert main(["table", f"runs={tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert r"| m n | a\|b&lt;img onerror=1> |" in text


@pytest.mark.slow
def test_a_thousand_runs_are_one_table(tmp_path, capsys):
    """How long it takes is measured by perf/table.py; here, that nothing is lost on the way."""
    draw = random.Random(0)
    rates = []
    for number in range(1000):
        good = tuple(draw.random() < 0.5 for _ in range(20))
        rates.append(sum(good) / 20)
        variant = {"train.learning_rate": number}
        run(tmp_path / str(number), sets={"a": ("vsil", good)}, variant=variant)
    assert main(["table", f"runs={tmp_path}", "format=json", "tables=rates"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [
        row["results"]["a"]["rate"]
        for row in sorted(found["rows"], key=lambda row: row["variant"]["train.learning_rate"])
    ] == rates
    assert len(found["tables"][0]["lines"]) == 1000


def test_one_request_asked_in_several_ways_is_one_cluster_of_the_average(tmp_path):
    """With the same answers to all four sets of images there is no more to learn from four than from one."""
    good = (True, False) * 50
    names = ("mm_safetybench_text", "mm_safetybench_sd", "mm_safetybench_typo", "mm_safetybench_sd_typo")
    (four,) = made(run(tmp_path / "four", sets=dict.fromkeys(names, ("vsil", good))))
    average = line(table([four], "paper"), "T-SFT")["mm_safetybench avg"]
    low, high = wilson(50, 100)
    assert average.low == pytest.approx(100 * low, abs=0.6)
    assert average.high == pytest.approx(100 * high, abs=0.6)


def test_a_validation_of_sets_that_have_an_average_is_shown(tmp_path, capsys):
    from align.commands.evaluate import _show
    from align.report.run_results import row_of

    it = run(tmp_path, sets=LEAKY)
    _show(it, "Validation", row_of(it)["results"])
    assert "jailbreakv_raw" in capsys.readouterr().out
