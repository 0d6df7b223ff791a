"""A table's rates among the items that leak and those that do not."""

import csv
import io
import json
import re

import pytest
from PIL import Image

from align.cli import main
from align.evaluation.metrics import wilson
from align.files import write_json
from tests.support.evaluated_runs import run
from tests.support.judge_server import judge_server


def flags(folder, leaks, name="mini_vsil", judge="vlm_requests"):
    """What `align leakage` leaves of a set; `leaks` is {id: flag}."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": key, "pair": "unsafe", "text": "safe", "leaks": leak}) for key, leak in leaks.items()]
    (folder / f"leaks.{judge}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    told = {"set": name, "judge": judge, "judge_version": "1 (gpt)", "text": "request"}
    write_json(folder / f"leakage.{judge}.json", told)
    return folder


def split_of(tmp_path, capsys, leaks):
    assert main(["table", f"runs={tmp_path / 'run'}", f"leaks={leaks}", "format=json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    return {name: result.get("leak_split") for name, result in row["results"].items()}


GOOD = (True, True, True, False, True, False, False, False)
LEAKS = {str(i): leak for i, leak in enumerate([True, True, True, True, False, False, False, None])}
"""Of the four that leak three are good, of the three that do not one; nothing is known of the last."""


def test_rates_of_items_that_leak_and_of_those_that_do_not(tmp_path, capsys):
    run(tmp_path / "run", good=GOOD)
    found = split_of(tmp_path, capsys, flags(tmp_path / "leakage" / "mini_vsil", LEAKS))["mini_vsil"]
    low, high = wilson(3, 4)
    assert found["leaks"] == {"n": 4, "invalid": 0, "rate": 0.75, "low": low, "high": high}
    low, high = wilson(1, 3)
    assert found["leak_free"] == {"n": 3, "invalid": 0, "rate": pytest.approx(1 / 3), "low": low, "high": high}
    assert (found["unlabelled"], found["judge"], found["text"]) == (1, "vlm_requests 1 (gpt)", "request")


def test_the_split_in_markdown_and_csv(tmp_path, capsys):
    run(tmp_path / "run", good=GOOD)
    leaks = flags(tmp_path / "leakage" / "mini_vsil", LEAKS)
    assert main(["table", f"runs={tmp_path / 'run'}", f"leaks={leaks / 'leaks.vlm_requests.jsonl'}"]) == 0
    text = capsys.readouterr().out
    assert "<br>leaks: 75.0 [30.1, 95.4] n=4<br>leak-free: 33.3 [6.1, 79.2] n=3<br>unlabelled: n=1 |" in text
    judge = r"vlm_requests 1 \(gpt\)"
    assert re.search(rf"- mini_vsil: .*pairs that {judge} calls unsafe.* text alone \(request\) .*{judge}", text)
    assert main(["table", f"runs={tmp_path / 'run'}", f"leaks={leaks}", "format=csv"]) == 0
    (line,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (line["leaks_n"], line["leaks_rate"], line["leak_free_n"], line["unlabelled"]) == ("4", "0.75", "3", "1")
    assert main(["table", f"runs={tmp_path / 'run'}", "format=csv"]) == 0
    (line,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert "leaks_n" not in line


def test_a_part_with_many_invalid_answers_is_withheld(tmp_path, capsys):
    """One of 21 that leak has no verdict (4.8%), and one of the two that do not."""
    run(tmp_path / "run", good=(True,) * 21, invalid=2)
    leaks = {str(i): i < 20 for i in range(21)} | {"x0": True, "x1": False}
    found = split_of(tmp_path, capsys, flags(tmp_path / "leakage" / "mini_vsil", leaks))["mini_vsil"]
    assert (found["leaks"]["n"], found["leaks"]["invalid"], found["leaks"]["rate"]) == (21, 1, 1.0)
    assert (found["leak_free"]["n"], found["leak_free"]["invalid"], found["leak_free"]["rate"]) == (2, 1, None)
    assert main(["table", f"runs={tmp_path / 'run'}", f"leaks={tmp_path / 'leakage'}"]) == 0
    assert "leak-free: withheld n=1 of 2" in capsys.readouterr().out


def test_only_safety_sets_that_were_measured_are_split_and_every_view_of_them(tmp_path, capsys):
    two = {"a": ("vsil", (True, False)), "a.blank": ("vsil", (True, True)), "b": ("vsil", (True,) * 2)}
    run(tmp_path / "run", sets=two | {"c": ("benign", (True,) * 2)})
    place = tmp_path / "leakage"
    for name in ("a", "c"):
        flags(place / name, {"0": True, "1": False}, name)
    found = split_of(tmp_path, capsys, place)
    assert {name for name, parts in found.items() if parts} == {"a", "a.blank"}
    assert [found[name]["leak_free"]["rate"] for name in ("a", "a.blank")] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda place: flags(place, {"0": True}), "7 of 8 items of mini_vsil are not in"),
        (lambda place: flags(place, LEAKS, "other"), "has flags for other, but no run has a safety benchmark"),
        (lambda place: place.mkdir(), "found no leaks.<judge>.jsonl. Write one with `align leakage`"),
        (lambda place: (flags(place, LEAKS), flags(place, LEAKS, judge="rule_requests")), "are both for mini_vsil"),
        (
            lambda place: (flags(place, LEAKS) / "leakage.vlm_requests.json").unlink(),
            "leakage.vlm_requests.json: cannot be read",
        ),
    ],
)
def test_flags_of_other_items_are_refused(tmp_path, capsys, make, expected):
    run(tmp_path / "run", good=GOOD)
    make(tmp_path / "leakage")
    assert main(["table", f"runs={tmp_path / 'run'}", f"leaks={tmp_path / 'leakage'}"]) == 2
    assert expected in capsys.readouterr().err


def test_folders_that_kept_only_ids_are_split_with_a_note(tmp_path, capsys):
    run(tmp_path / "run", good=GOOD)
    leaks = flags(tmp_path / "leakage" / "mini_vsil", LEAKS)
    assert main(["table", f"runs={tmp_path / 'run'}", f"leaks={leaks}"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"it is not checked that the items of mini_vsil .* stored only ids", said)


def local(folder, **changed):
    """Four requests under the ids that they get where a file gives none, each over an image of its own."""
    folder.mkdir(exist_ok=True)
    rows = [
        {"prompt": f"may i do item {i}", "image": f"{i}.png", "role": "harmful", "harm_in": "both"} for i in range(4)
    ]
    for i in range(4):
        Image.new("RGB", (8, 8), (40 * i + changed.get("shade", 0), 0, 0)).save(folder / f"{i}.png")
    rows[2] |= {key: value for key, value in changed.items() if key != "shade"}
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"path={folder / 'items.jsonl'}"


@pytest.mark.parametrize(
    ("view", "changed", "expected"),
    [
        ("image", {}, None),
        ("text", {}, None),
        ("image", {"prompt": "may i do another"}, "1 of 4 items of local have another prompt or role"),
        ("text", {"prompt": "may i do another"}, "1 of 4 items of local.text have another prompt or role"),
        ("image", {"shade": 5}, "4 of 4 items of local have another image"),
        ("text", {"shade": 5}, None),  # nobody looked
    ],
)
def test_flags_are_of_the_very_rows_that_were_evaluated(tmp_path, monkeypatch, capsys, view, changed, expected):
    """Two files of one name and the same ids: what was measured of the one says nothing of the other."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with judge_server(reply=lambda number, body: "unsafe") as server:
        judge = ["judge=vlm", f"judge.base_url={server.url}", "judge.model=m", "probe=false"]
        assert main(["leakage", "benchmark=local", local(tmp_path / "set"), *judge]) == 0
        answering = [f"generation.base_url={server.url}", "generation.model=answerer", "judge=refusal_match"]
        where = [local(tmp_path / "set", **changed), f"view={view}", "output_dir=runs/mine"]
        assert main(["eval", *answering, "benchmark=local", *where]) == 0
    capsys.readouterr()
    status = main(["table", "runs=runs", "leaks=runs/leakage", "format=json"])
    told = capsys.readouterr()
    if expected is None:
        assert status == 0
        table = json.loads(told.out)
        assert not [note for note in table["notes"] if "cannot be checked" in note]
        (split,) = [result["leak_split"] for result in table["rows"][0]["results"].values()]
        assert split["leaks"]["n"] == 4
    else:
        assert status == 2
        assert expected in told.err
        assert f"first {'items-3' if 'prompt' in changed else 'items-1'}" in told.err
