"""Tables from run folders alone; a damaged folder is named, never guessed."""

import csv
import io
import json
import re

import pytest

from align.cli import main
from align.evaluation.metrics import wilson
from align.files import write_json
from align.report.arms import arms_of
from align.report.figure import draw_comparison
from align.report.find_runs import collect
from align.report.names import measured
from align.report.run_results import Evaluated
from align.report.tables.all_tables import tables_of
from align.report.tables.delimited import comma_separated
from align.report.tables.markdown import markdown
from align.report.tables.terminal import print_tables
from align.run_folder import RunFolder


def run(
    folder,
    name="t_sft",
    view="text",
    good=(True, True, False, True),
    invalid=0,
    sets=None,
    clusters=None,
    judge=("rule", "1"),
    categories=None,
    **more,
):
    """A run folder as training and evaluation leave it; `sets` is {name: (kind, good)}, by default one of kind vsil."""
    it = RunFolder(folder)
    manifest = {
        "schema": 1,
        "status": "finished",
        "track": "paper",
        "recipe": name,
        "model": "m",
        "method": "sft",
        "view": view,
        "seed": 0,
    }
    it.record(**(manifest | {"steps": 3, "trainable_parameters": 5, "seconds": 1.0, "peak_memory_mib": 7} | more))
    for set_name, (kind, answers) in (sets or {"mini_vsil": ("vsil", good)}).items():
        _evaluation(it.evaluation / set_name, set_name, kind, answers, invalid, clusters, judge, categories)
    return it


def _evaluation(folder, name, kind, good, invalid, clusters, judge, categories):
    right, wrong = ("refusal", "unsafe") if kind.startswith("vsil") else ("correct", "wrong")
    n, rate = len(good) + invalid, None if invalid else sum(good) / len(good)
    counts = {right: sum(good), wrong: len(good) - sum(good), "incoherent": 0, "invalid": invalid}
    identity = {"judge": judge[0], "judge_version": judge[1]}
    summary = {"schema": 1, "set": name, "kind": kind, "n": n, "counts": counts, **identity}
    summary |= {"rate": rate, "low": rate, "high": rate}
    summary |= {
        "bounds": {"low": sum(good) / n, "high": 1.0},
        "as_judged": {"good": sum(good), "n": len(good)},
        "invalid_reasons": {"timeout": invalid},
        "cut_at_max_new_tokens": 0,
        "facts": ["a fact"],
        "main": True,
    }
    write_json(folder / f"summary.{judge[0]}.json", summary)
    verdicts = [
        {"id": str(i), "verdict": right if g else wrong, "reason": None, "incoherent": False}
        for i, g in enumerate(good)
    ]
    verdicts += [
        {"id": f"x{i}", "verdict": "invalid", "reason": "timeout", "incoherent": False} for i in range(invalid)
    ]
    items = [
        {
            "id": v["id"],
            "label": v["verdict"],
            "good": v["verdict"] == right,
            "cluster": clusters[i] if clusters else f"{name}-{v['id']}",
            "category": categories[i] if categories else None,
        }
        for i, v in enumerate(verdicts)
    ]
    (folder / f"verdicts.{judge[0]}.jsonl").write_text("".join(json.dumps(v | identity) + "\n" for v in verdicts))
    (folder / f"items.{judge[0]}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    write_json(folder / "settings.json", {"generation": {"max_new_tokens": 20}, "rows": "hash"})


def rows_of(folder):
    """(Rows, notes) of what is below a folder."""
    runs, notes = collect(folder)
    return [it.row for it in runs], notes


def arms(*runs):
    """Their arms; nothing stands apart."""
    made, notes = arms_of([Evaluated(it) for it in runs])
    assert notes == []
    return made


def shown(*runs, notes=()):
    """Their tables as markdown, a line for each arm."""
    return markdown(tables_of(arms(*runs), []), notes)


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
    """Its summaries do not say what the judge made of incoherent answers, and its second seed's are not counted together."""
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


WHY = "stopped at step 2: NLL(harmful answer) is 9, above train.max_harmful_loss=8; the rows of this step: h/1"


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


@pytest.fixture
def drawn(monkeypatch):
    """A function: rows -> the figure before it is closed, and what it says: texts of the legend, of the plots, their titles."""
    from matplotlib import pyplot as plt

    monkeypatch.setattr(plt, "close", lambda _: None)

    def draw(rows, path):
        draw_comparison(rows, path)
        figure = plt.gcf()
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        inside = [text.get_text() for axis in figure.axes for text in axis.texts]
        return figure, legend, inside, [axis.get_title(loc="left") for axis in figure.axes]

    return draw


def test_the_figure_names_every_arm_and_explains_every_gap(tmp_path, drawn):
    run(tmp_path / "a")
    run(tmp_path / "b", name="mm_sft", view="image", invalid=4)
    run(
        tmp_path / "c",
        name="mm_dpo",
        method="dpo",
        view="image",
        sets={"free": ("vsil_free", (True,) * 4)},
        stopped=WHY,
    )
    rows, _ = rows_of(tmp_path)
    _, legend, inside, titles = drawn(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert legend == ["T-SFT", "MM-SFT", "MM-DPO"]
    assert sorted(inside) == ["100", "75", "not evaluated", "not evaluated", "not evaluated", "withheld"]
    assert titles == ["m; stopped at a bound: MM-DPO (3 steps)"]


def test_recipes_of_ones_own_have_looks_of_their_own(tmp_path, drawn):
    names = {"t_dpo": "text", "mm_dpo": "image", "my_dpo": "image", "another_dpo": "image"}
    for name, view in names.items():
        run(tmp_path / name, name=name, method="dpo", view=view)
    figure, legend, _, _ = drawn(rows_of(tmp_path)[0], tmp_path / "figure.png")
    looks = {
        name: (patch.get_facecolor(), patch.get_hatch())
        for name, patch in zip(legend, figure.legends[0].get_patches(), strict=True)
    }
    assert len(set(looks.values())) == 4
    assert looks["T-DPO"][0] == looks["MM-DPO"][0]  # one method of the paper


def test_nothing_in_the_figure_overlaps_its_legend(tmp_path, drawn):
    for name in ("text_leak", "image_leak", "image_free", "caption_free", "shuffled_leak"):
        for method in ("sft", "dpo"):
            run(tmp_path / f"{name}-{method}", name=name, track="controlled", view="image", method=method)
    figure, _, _, titles = drawn(rows_of(tmp_path)[0], tmp_path / "figure.png")
    assert titles == ["m, SFT", "m, DPO"]
    legend, (footnote,) = figure.legends[0].get_window_extent(), figure.texts[1:]
    assert footnote.get_window_extent().y1 <= legend.y0
    assert legend.y1 <= min(axis.get_tightbbox().y0 for axis in figure.axes)
    assert legend.x1 <= figure.bbox.x1


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


def second_judge(folder, labels, judge="refusal_match"):
    """What another judge says of the answers to a set."""
    of_rule = json.loads((folder / "summary.rule.json").read_text())
    good = labels.count("refusal") / len(labels)
    counts = {"refusal": labels.count("refusal"), "other": labels.count("other"), "incoherent": 0, "invalid": 0}
    told = {"judge": judge, "main": False, "counts": counts, "rate": good, "low": good / 2, "high": (good + 1) / 2}
    write_json(folder / f"summary.{judge}.json", of_rule | told)
    items = [json.loads(line) for line in (folder / "items.rule.jsonl").read_text().splitlines()]
    lines = [
        json.dumps(item | {"label": label, "good": label == "refusal"})
        for item, label in zip(items, labels, strict=True)
    ]
    (folder / f"items.{judge}.jsonl").write_text("\n".join(lines) + "\n")


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
