"""Run folders as training and evaluation leave them, and what a report makes of them."""

import json

from align.files import write_json
from align.report.arms import arms_of
from align.report.find_runs import collect
from align.report.run_results import Evaluated
from align.report.tables.all_tables import tables_of
from align.report.tables.markdown import markdown
from align.run_folder import RunFolder

WHY = "stopped at step 2: NLL(harmful answer) is 9, above train.max_harmful_loss=8; the rows of this step: h/1"
"""Why a run stopped."""


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
    for set_name, (kind, answers) in ({"mini_vsil": ("vsil", good)} if sets is None else sets).items():
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


def rows_of(folder):
    """(Rows, notes) of what is below a folder."""
    runs, notes = collect(folder)
    return [it.row for it in runs], notes


def made(*runs):
    """Their arms; nothing stands apart."""
    arms, notes = arms_of([Evaluated(it) for it in runs])
    assert notes == []
    return arms


def shown(*runs, notes=()):
    """Their tables as markdown, a line for each arm."""
    return markdown(tables_of(made(*runs), []), notes)
