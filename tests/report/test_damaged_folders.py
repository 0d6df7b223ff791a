"""Damaged run folders: named in the notes, never a crash, never a number that cannot be."""

import json
import re

import pytest

from align.cli import main
from tests.support.evaluated_runs import run
from tests.support.table_lines import YES


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "items.rule.jsonl").unlink(), "items.rule.jsonl: cannot be read"),
        (lambda folder: (folder / "items.rule.jsonl").write_text('{"id": "0"'), "line 1: not valid JSON"),
        (
            lambda folder: (folder / "items.rule.jsonl").write_text('{"id": "0"}\n'),
            "items.rule.jsonl: a line is not an item",
        ),
        (lambda folder: (folder / "items.rule.jsonl").write_text("[1]\n"), "items.rule.jsonl: a line is not an item"),
        (lambda folder: _cut(folder / "items.rule.jsonl"), "but its summary counts"),
        (lambda folder: (folder / "settings.json").unlink(), "settings.json: cannot be read"),
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


def test_half_a_character_is_written_out(tmp_path):
    it = run(tmp_path / "a")
    it.manifest_file.write_text(json.dumps(it.manifest() | {"recipe": "t_\ud800"}))
    assert main(["table", f"runs={it.path}", "format=csv", f"output={tmp_path / 'table.csv'}"]) == 0
    assert "\\ud800" in (tmp_path / "table.csv").read_text()
    assert main(["table", f"runs={it.path}", "format=md", f"output={tmp_path / 'table.md'}"]) == 0
