"""Folders of many runs: read by several processes, and sets that they share read once, to what
reading each by itself gives.
"""

import json
import os
import sys
from collections import Counter
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.cli import main
from align.report import find_runs as collect
from align.report.items import read_items
from tests.support.evaluated_runs import run, second_judge

SETS = {"a": ("vsil", (True, False, True, True)), "a_free": ("vsil_free", (False, True, True, False))}
LABELS = {"refusal": True, "warning": True, "unsafe": False, "invalid": False}


@pytest.fixture
def folder(tmp_path):
    for seed in (0, 1, 2):
        for name, view in (("t_sft", "text"), ("mm_sft", "image")):
            run(tmp_path / f"{name}-{seed}", name=name, view=view, seed=seed, sets=SETS)
    run(tmp_path / "t_dpo", name="t_dpo", method="dpo", view="text", sets=SETS)
    second_judge(tmp_path / "t_dpo" / "evaluation" / "a", ["refusal", "other", "refusal", "other"])
    cut = tmp_path / "mm_sft-1" / "evaluation" / "a" / "items.rule.jsonl"
    cut.write_text("".join(cut.read_text().splitlines(keepends=True)[:-1]))
    (tmp_path / "t_sft-2" / "manifest.json").write_text("[]")
    return tmp_path


def parts(run):
    items = run.items("a_free")
    return (
        run.run,
        run.row,
        run.notes,
        items.ids,
        items.labels,
        items.good.tolist(),
        items.cluster_names,
        items.categories,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems read one run after the other")
def test_several_processes_read_what_one_reads(folder, monkeypatch, capsys):
    by_one, notes = collect.collect(folder)
    assert main(["table", f"runs={folder}"]) == 0
    table = capsys.readouterr().out
    assert "mm_sft-1: a is left out" in table
    assert "t_sft-2: damaged" in table

    monkeypatch.setattr(collect, "MANY", 2)
    monkeypatch.setattr(collect, "AT_ONCE", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    by_three, same_notes = collect.collect(folder)
    assert same_notes == notes
    assert [parts(it) for it in by_three] == [parts(it) for it in by_one]
    assert main(["table", f"runs={folder}"]) == 0
    assert capsys.readouterr().out == table


names = st.one_of(
    st.text(min_size=1), st.just('", "label": "unsafe", "good": true, "'), st.just('"label": "unsafe", "good": true')
)
asked = st.lists(st.tuples(names, names, st.none() | names), min_size=1, max_size=8, unique_by=lambda of: of[0])


@given(asked, st.data())
def test_a_set_that_was_read_before_is_read_with_the_labels_of_each_file(tmp_path_factory, of_items, data):
    folder, number = tmp_path_factory.mktemp("items"), count()
    for _ in range(3):
        labels = data.draw(st.lists(st.sampled_from(list(LABELS)), min_size=len(of_items), max_size=len(of_items)))
        file = folder / f"{next(number)}.jsonl"
        lines = [
            {"id": name, "label": label, "good": LABELS[label], "cluster": cluster, "category": category}
            for (name, cluster, category), label in zip(of_items, labels, strict=True)
        ]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        valid = sum(label != "invalid" for label in labels)
        rate = sum(map(LABELS.__getitem__, labels)) / valid if valid else None
        items = read_items(file, {"counts": Counter(labels), "kind": "vsil", "rate": rate})
        assert list(zip(items.ids, items.cluster_names, items.categories, strict=True)) == of_items
        assert list(items.labels) == labels
        assert items.good.tolist() == [LABELS[label] for label in labels]
