"""The tables: in the paper's layout, its numbers beside ours with what is otherwise, whole where a grid is not."""

import json
import random
import re
import shutil
import subprocess

import pytest

from align.cli import main
from align.evaluation.metrics import wilson
from align.files import write_json
from align.report.arms import arms_of
from align.report.collect import collect
from align.report.evaluated import Evaluated
from align.report.findings import findings
from align.report.tables.beside_paper import notes_on_paper
from align.report.tables.everything import tables_of
from align.report.tables.latex import latex
from align.report.tables.markdown import markdown
from tests.report.test_report import run, second_judge

GUARD = ("llamaguard", "1 (meta-llama/Llama-Guard-3-8B)")
YES, NO = (True,) * 40, (False,) * 40
LEAKY = {
    "jailbreakv_raw": ("vsil", (True,) * 30 + (False,) * 10),
    "jailbreakv_jailbreak": ("vsil", (True,) * 10 + (False,) * 30),
}


def made(*runs):
    arms, notes = arms_of([Evaluated(it) for it in runs])
    assert notes == []
    return arms


def table(arms, name, comparisons=()):
    return next(one for one in tables_of(arms, list(comparisons)) if one.name == name)


def line(table, label):
    of_label = next(one for one in table.lines if one.label == label)
    return {column.name: cell for column, cell in zip(table.columns, of_label.cells, strict=True)}


def test_textual_and_multimodal_arms_stand_in_blocks_below_their_model_in_the_papers_order(tmp_path):
    recipes = {"vanilla": (None, None), "t_dpo": ("dpo", "text"), "mm_sft": ("sft", "image"), "t_sft": ("sft", "text")}
    for name, (method, view) in recipes.items():
        run(tmp_path / name, name=name, method=method, view=view, sets=LEAKY, model="llava_7b")
    found = findings(collect(tmp_path)[0])
    of_track = table(found.arms, "paper")
    assert [(one.group, one.block, one.label) for one in of_track.lines] == [
        ("llava_7b", "without training of ours", "no alignment"),
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


def test_the_papers_number_stands_beside_the_same_model_method_and_set_and_nowhere_else(tmp_path):
    sets = {"safebench": ("vsil", YES), "mini_vsil": ("vsil", YES)}
    arms = made(
        run(tmp_path / "a", sets=sets, model="llava_7b"),
        run(tmp_path / "b", sets=sets, model="mini_llava"),
        run(tmp_path / "c", sets=sets, model="llava_7b", name="text_leak", track="controlled"),
        run(tmp_path / "d", sets=sets, model="Qwen/Qwen2-VL-7B-Instruct", name="mm_sft", view="image"),
    )
    beside = {
        (one.name, line_of.group, column.name): cell.paper and cell.paper.value
        for one in tables_of(arms, [])
        if one.name in ("paper", "controlled")
        for line_of in one.lines
        for column, cell in zip(one.columns, line_of.cells, strict=True)
    }
    assert {key: value for key, value in beside.items() if value is not None} == {
        ("paper", "llava_7b", "safebench"): 96.4,
        ("paper", "Qwen/Qwen2-VL-7B-Instruct", "safebench"): 100.0,
    }
    assert "<br>paper 96.4 |" in markdown(tables_of(arms, []))


def test_what_is_otherwise_than_in_the_paper_is_said(tmp_path):
    sets = {"safebench": ("vsil", YES), "vlsbench": ("vsil_free", NO), "mmstar": ("ability", YES)}
    judge = ("vlsbench", "1 (gpt-4o-2024-08-06)")
    arms = made(
        run(tmp_path, name="mm_sft", view="image", sets=sets, model="llava_7b", judge=judge, tuning="LoRA r 128")
    )
    notes = notes_on_paper(arms)
    assert notes[0].startswith(
        "`paper` is what VLSBench, arXiv 2411.19939 prints of the same model, method and set (table 2, table 16)"
    )
    assert "other judge: the paper's is LlamaGuard3-8B, here vlsbench 1 (gpt-4o-2024-08-06) (safebench)" in notes
    assert any(note.startswith("other judge: the paper's is GPT-4o") and "words of ours" in note for note in notes)
    assert "LoRA r 128 here, all parameters in the paper: MM-SFT of llava_7b" in notes
    assert "other items: safebench has 40 here, 500 in the paper (table 2)" in notes
    assert "other items: vlsbench has 40 here, 2241 in the paper (table 16)" in notes
    assert any("mm_sft are checkpoints that others released" in note for note in notes)


def test_the_papers_own_judge_and_training_need_no_note(tmp_path):
    arms = made(run(tmp_path, sets={"safebench": ("vsil", YES)}, model="qwen2_vl_7b", judge=GUARD, tuning="full"))
    notes = notes_on_paper(arms)
    assert not [note for note in notes if "judge" in note or "parameters" in note or "released" in note]


def test_a_number_that_is_doubted_has_a_star_and_a_note(tmp_path):
    arms = made(
        run(
            tmp_path,
            name="t_safe_unlearning",
            method="safe_unlearning",
            sets={"safebench": ("vsil", YES)},
            model="llava_7b",
        )
    )
    assert "paper 91.79* |" in markdown(tables_of(arms, []))
    assert any(note.startswith("marked *: table 2, no share of 500 items is 91.79 %") for note in notes_on_paper(arms))


def test_without_a_number_of_the_paper_nothing_is_said_of_it(tmp_path):
    assert notes_on_paper(made(run(tmp_path))) == []


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


ABILITY = {
    "mme": {"mme_cognition_score": 340.0, "mme_perception_score": 1500.0},
    "mmmu_val": {"mmmu_acc": 0.35},
    "mmstar": {"average": 0.33},
    "mmvet": {"gpt_eval_score": 29.5},
}


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


def test_seeds_are_one_line_and_a_set_that_one_seed_lacks_says_so(tmp_path, capsys):
    run(tmp_path / "0", sets={"a": ("vsil", YES), "b": ("vsil", YES)}, seed=0)
    run(tmp_path / "1", sets={"a": ("vsil", NO)}, seed=1)
    assert main(["table", f"runs={tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert "| paper | m | T-SFT | SFT | 0,1 | 3 | 50.0 [" in text
    assert "<br>of seed 0 alone |" in text
    assert "- m, paper track, T-SFT: b is of seed 0 alone" in text


def test_what_a_grid_lacks_is_said(tmp_path):
    sets = {"a": ("vsil", YES), "b": ("benign", YES)}
    for model in ("one", "two"):
        for name, view in (("t_sft", "text"), ("mm_sft", "image")):
            for seed in (0, 1):
                if (model, name) != ("two", "mm_sft") and (model, name, seed) != ("one", "t_sft", 1):
                    run(tmp_path / f"{model}-{name}-{seed}", name=name, view=view, model=model, seed=seed, sets=sets)
    run(tmp_path / "vanilla", name="vanilla", method=None, view=None, model="one", sets={"a": ("vsil", NO)})
    notes = findings(collect(tmp_path)[0]).notes
    assert "one, paper track, T-SFT: no finished run with seed 1, which others have" in notes
    assert "two, paper track: no finished run of mm_sft, which others have" in notes
    assert "one, paper track, no alignment: no verdicts on b, which others have" in notes


def test_two_runs_of_one_seed_stand_apart_and_are_not_compared(tmp_path):
    for folder in ("a", "b"):
        run(tmp_path / folder, sets={"a": ("vsil", YES), "f": ("vsil_free", NO)})
    run(tmp_path / "c", name="mm_sft", view="image", sets={"a": ("vsil", YES), "f": ("vsil_free", YES)})
    found = findings(collect(tmp_path)[0])
    assert [arm.row.get("apart") for arm in found.arms] == [str(tmp_path / "a"), str(tmp_path / "b"), None]
    assert found.comparisons == []
    assert any("recipes and models may have names of their own" in note for note in found.notes)


def test_models_as_they_are_are_not_pooled_as_seeds(tmp_path):
    for seed in (0, 1):
        run(tmp_path / str(seed), name="vanilla", method=None, view=None, seed=seed)
    assert len(findings(collect(tmp_path)[0]).arms) == 2


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "items.rule.jsonl").unlink(), "not readable"),
        (lambda folder: (folder / "items.rule.jsonl").write_text('{"id": "0"'), "line 1: not valid JSON"),
        (lambda folder: (folder / "items.rule.jsonl").write_text('{"id": "0"}\n'), "a line is no item"),
        (lambda folder: (folder / "items.rule.jsonl").write_text("[1]\n"), "a line is no item"),
        (lambda folder: _cut(folder / "items.rule.jsonl"), "is not what its summary counts"),
        (lambda folder: (folder / "settings.json").unlink(), "settings.json: not readable"),
    ],
)
def test_a_damaged_set_is_left_out_and_named_and_the_rest_is_shown(tmp_path, capsys, damage, said):
    sets = {"a": ("vsil", YES), "b": ("benign", YES)}
    it = run(tmp_path / "hurt", sets=sets)
    run(tmp_path / "whole", name="mm_sft", view="image", sets=sets)
    damage(it.evaluation / "a")
    assert main(["table", f"runs={tmp_path}"]) == 0
    text = capsys.readouterr().out
    (note,) = [line for line in text.splitlines() if line.startswith(f"- {it.path}: a is left out: ")]
    assert said in note
    assert "| paper | m | T-SFT | SFT | 0 | 3 | - | 100.0 [100.0, 100.0] n=40<br>correct 40 |" in text


def _cut(file):
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def test_arms_of_the_controlled_track_that_differ_in_more_are_not_compared_and_the_difference_is_named(tmp_path):
    sets = {"a": ("vsil", YES), "f": ("vsil_free", NO)}
    for name in ("text_leak", "image_leak"):
        run(tmp_path / name, name=name, track="controlled", view="image", sets=sets)
    found = findings(collect(tmp_path)[0])
    assert found.comparisons == []
    assert any("arms of the controlled track are not compared: " in note for note in found.notes)


NAMES = {
    "100% of_it & #1": r"100\% of\_it \& \#1",
    "a~b^c{d}\\e$": r"a\textasciitilde{}b\textasciicircum{}c\{d\}\textbackslash{}e\$",
    "<x|y>": r"\textless{}x\textbar{}y\textgreater{}",
    "tab\tnew\nline": "tab new line",
}


@pytest.mark.parametrize("name", NAMES)
def test_latex_escapes_what_people_wrote(tmp_path, name):
    text = latex(tables_of(made(run(tmp_path / "a", name=name, model=name)), []), ["50% & more"])
    assert rf"\textbf{{{NAMES[name]}}}" in text
    assert rf"\quad\quad {NAMES[name]} &" in text
    assert text.endswith("% 50% & more\n")


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed (Debian: texlive-latex-recommended)"
)
def test_latex_compiles(tmp_path, capsys):
    for i, (name, view) in enumerate({"t_sft": "text", "mm_sft": "image", "a~b^c{d}\\e$": "image"}.items()):
        for seed in (0, 1):
            sets = LEAKY | {"safebench": ("vsil", YES), "vlsbench": ("vsil_free", NO)}
            run(
                tmp_path / f"{i}-{seed}",
                name=name,
                view=view,
                seed=seed,
                model="llava_7b",
                sets=sets,
                categories=["a_%", "b&"] * 20,
            )
    assert main(["table", f"runs={tmp_path}", "format=latex", f"output={tmp_path / 'tables.tex'}"]) == 0
    document = "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage{booktabs,graphicx}",
            r"\begin{document}",
            r"\input{tables}",
            r"\end{document}",
        ]
    )
    (tmp_path / "document.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    if "booktabs.sty' not found" in done.stdout:
        pytest.skip("LaTeX has no booktabs (Debian: texlive-latex-recommended)")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "document.pdf").stat().st_size > 10_000
    assert "Missing character" not in done.stdout


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
    assert "MM-SFT against T-SFT gives more safe answers" in found["conclusions"][0]
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


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"train": {"learning_rate": 1.0}}, "train.learning_rate is 0.001 in one and 1.0 in the other"),
        ({"tuning": "full"}, "tuning is None in one and 'full' in the other"),
        ({"base": "another"}, "base is None in one and 'another' in the other"),
        ({"view": "image"}, "view is 'text' in one and 'image' in the other"),
    ],
)
def test_runs_of_one_name_that_were_trained_otherwise_are_no_seeds_of_one_arm(tmp_path, other, said):
    settings = {"train": {"learning_rate": 0.001, "seed": 0, "output_dir": "a"}}
    run(tmp_path / "0", seed=0, **settings)
    run(tmp_path / "1", seed=1, **(settings | other))
    found = findings(collect(tmp_path)[0])
    assert [arm.row["apart"] for arm in found.arms] == [str(tmp_path / "0"), str(tmp_path / "1")]
    assert any(said in note for note in found.notes)


def test_seeds_differ_in_seed_and_place(tmp_path):
    for seed in (0, 1):
        train = {
            "learning_rate": 0.001,
            "seed": seed,
            "output_dir": f"runs/{seed}",
            "per_device_train_batch_size": 4 + seed,
        }
        run(tmp_path / str(seed), seed=seed, train=train)
    assert [arm.row["seed"] for arm in findings(collect(tmp_path)[0]).arms] == ["0,1"]


def test_seeds_apart_keep_the_folder_of_what_stood_apart(tmp_path, capsys):
    for folder in ("a", "b"):
        run(tmp_path / folder)
    assert main(["table", f"runs={tmp_path}", "seeds=apart", "tables=rates"]) == 0
    text = capsys.readouterr().out
    assert f"| T-SFT, {tmp_path / 'a'} |" in text
    assert f"| T-SFT, {tmp_path / 'b'} |" in text


def test_judges_beside_the_main_one_are_pooled_by_name_and_one_that_a_seed_lacks_is_said(tmp_path):
    runs = [run(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    for it in runs:
        second_judge(it.evaluation / "mini_vsil", ["refusal", "other", "other", "other"])
    second_judge(runs[0].evaluation / "mini_vsil", ["refusal", "refusal", "other", "other"], judge="a_judge")
    found = findings(collect(tmp_path)[0])
    (other,) = found.arms[0].row["results"]["mini_vsil"]["other_judges"]
    assert (other["judge"], other["n"], other["rate"]) == ("refusal_match", 8, 0.25)
    assert "m, paper track, T-SFT: mini_vsil was judged by a_judge under some of its seeds only" in found.notes


def test_a_word_lists_refusals_stand_beside_the_papers_refusals(tmp_path):
    it = run(
        tmp_path,
        sets={"vlsbench": ("vsil_free", (True, True, False, True))},
        model="llava_7b",
        judge=("vlsbench", "1 (gpt-4o)"),
    )
    folder = it.evaluation / "vlsbench"
    (folder / "summary.rule.json").write_bytes((folder / "summary.vlsbench.json").read_bytes())
    (folder / "items.rule.jsonl").write_bytes((folder / "items.vlsbench.jsonl").read_bytes())
    second_judge(folder, ["refusal", "other", "other", "other"])
    (folder / "summary.rule.json").unlink()
    arms = made(it)
    assert line(table(arms, "paper"), "T-SFT")["vlsbench"].paper.value == 13.99
    cell = line(table(arms, "paper-judge-refusal_match"), "T-SFT")["vlsbench (refusal_match)"]
    assert cell.paper is None or cell.paper.value == 5.3


def test_one_request_asked_in_several_ways_is_one_cluster_of_the_average(tmp_path):
    """With the same answers to all four sets of pictures there is no more to learn from four than from one."""
    good = (True, False) * 50
    names = ("mm_safetybench_text", "mm_safetybench_sd", "mm_safetybench_typo", "mm_safetybench_sd_typo")
    (four,) = made(run(tmp_path / "four", sets=dict.fromkeys(names, ("vsil", good))))
    average = line(table([four], "paper"), "T-SFT")["mm_safetybench avg"]
    low, high = wilson(50, 100)
    assert average.low == pytest.approx(100 * low, abs=0.6)
    assert average.high == pytest.approx(100 * high, abs=0.6)


def test_no_number_of_the_paper_stands_beside_what_only_has_its_name(tmp_path):
    sets = {"vlsbench": ("vsil_free", YES)}
    arms = [
        *made(run(tmp_path / "a", name="mm_sft", view="text", sets=sets, model="llava_7b")),
        *made(
            run(
                tmp_path / "b",
                name="mm_sft",
                method=None,
                view=None,
                defence="safety_prompt",
                sets=sets,
                model="llava_7b",
            )
        ),
        *made(run(tmp_path / "c", name="safety_prompt", sets=sets, model="llava_7b")),
        *made(run(tmp_path / "d", name="mm_sft", view="image", sets=sets, model="somebody/llava-7b")),
    ]
    assert notes_on_paper(arms) == []
    beside = made(
        run(
            tmp_path / "e",
            name="safety_prompt",
            method=None,
            view=None,
            defence="safety_prompt",
            sets=sets,
            model="llava_7b",
        )
    )
    assert line(table(beside, "paper"), "safety prompt")["vlsbench"].paper.value == 44.5


WRONG = [
    ("manifest.json", "track", 5),
    ("manifest.json", "seed", "0"),
    ("manifest.json", "variant", []),
    ("manifest.json", "steps", None),
    ("summary.rule.json", "kind", "odd"),
    ("summary.rule.json", "n", 0),
    ("summary.rule.json", "rate", 5),
    ("summary.rule.json", "rate", float("nan")),
    ("summary.rule.json", "rate", 0.5),
    ("summary.rule.json", "low", None),
    ("summary.rule.json", "counts", []),
    ("summary.rule.json", "counts", {"refusal": 39}),
    ("summary.rule.json", "facts", "one"),
    ("summary.rule.json", "bounds", None),
    ("summary.rule.json", "main", "yes"),
    ("settings.json", "rows", None),
    ("settings.json", "generation", []),
    ("items.rule.jsonl", "id", 1),
    ("items.rule.jsonl", "good", "true"),
    ("items.rule.jsonl", "good", False),
    ("items.rule.jsonl", "cluster", None),
    ("items.rule.jsonl", "category", {}),
    ("items.rule.jsonl", "id", "1"),
]


@pytest.mark.parametrize(("file", "key", "value"), WRONG)
def test_a_value_of_another_type_or_that_cannot_be_is_named_and_no_number(tmp_path, capsys, file, key, value):
    sets = {"a": ("vsil", YES)}
    it = run(tmp_path / "hurt", sets=sets)
    run(tmp_path / "whole", name="mm_sft", view="image", sets=sets)
    place = it.path / file if file == "manifest.json" else it.evaluation / "a" / file
    first, *rest = place.read_text().splitlines() if file.endswith("jsonl") else [place.read_text()]
    place.write_text("\n".join([json.dumps(json.loads(first) | {key: value}), *rest]) + "\n")
    for form in ("md", "json", "csv", "latex"):
        assert main(["table", f"runs={tmp_path}", f"format={form}"]) == 0
        told = capsys.readouterr()
        text = told.out + told.err
        assert str(it.path) in text
        assert "NaN" not in text
        assert re.search(r"damaged: |is left out: ", text)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '"x"', "[1, 2]", "{", "\x00\x01", ""])
@pytest.mark.parametrize(
    "file",
    ["manifest.json", "evaluation/a/summary.rule.json", "evaluation/a/settings.json", "evaluation/a/items.rule.jsonl"],
)
def test_any_file_may_hold_anything(tmp_path, capsys, file, content):
    run(tmp_path / "hurt", sets={"a": ("vsil", YES)})
    run(tmp_path / "whole", name="mm_sft", view="image", sets={"a": ("vsil", YES)})
    (tmp_path / "hurt" / file).write_text(content)
    assert main(["table", f"runs={tmp_path}", "tables=rates,differences"]) == 0
    text = capsys.readouterr().out
    assert re.search(rf"- {tmp_path / 'hurt'}: (damaged|not finished|a is left out)", text)
    assert "| paper | m | MM-SFT | SFT | 0 | 3 | 100.0 [100.0, 100.0] n=40<br>refusal 40 |" in text


def test_a_validation_of_sets_that_have_an_average_is_shown(tmp_path, capsys):
    from align.commands.evaluate import _show
    from align.report.evaluated import row_of

    it = run(tmp_path, sets=LEAKY)
    _show(it, "Validation", row_of(it)["results"])
    assert "jailbreakv_raw" in capsys.readouterr().out


def test_half_a_character_is_written_out(tmp_path):
    it = run(tmp_path / "a")
    it.manifest_file.write_text(json.dumps(it.manifest() | {"recipe": "t_\ud800"}))
    assert main(["table", f"runs={it.path}", "format=csv", f"output={tmp_path / 'table.csv'}"]) == 0
    assert "\\ud800" in (tmp_path / "table.csv").read_text()
    assert main(["table", f"runs={it.path}", "format=md", f"output={tmp_path / 'table.md'}"]) == 0
