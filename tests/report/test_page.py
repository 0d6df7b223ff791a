"""The page: whole in one file, the answer first, its figures and numbers; damage is named."""

import json
import re
import shutil

import pytest

from align.cli import main
from align.files import write_json
from align.run_folder import RunFolder
from tests.support.answered_runs import answered
from tests.support.pages import page_of, two_runs


def test_everything_is_in_the_file(whole):
    text, parsed, _ = whole
    for tag, attributes in parsed.elements:
        for key in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            address = attributes.get(key)
            assert not address or address.startswith(("#", "data:")), (tag, key, address)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "default-src 'none'" in text


def test_the_answer_with_its_interval_stands_first(whole):
    _, parsed, _ = whole
    sections = [attributes["id"] for tag, attributes in parsed.elements if tag == "section"]
    assert sections == [
        "answer",
        "leak",
        "cost-of-safety",
        "tables",
        "categories",
        "training",
        "examples",
        "cost",
        "provenance",
    ]
    at_first = parsed.text.index("Not shown. On free, where only the image shows the danger, MM-SFT gives 0.0 points")
    in_words = "where only the image shows the danger, MM-SFT compared with T-SFT makes no significant"
    assert at_first < parsed.text.index("Interaction of arm and leak") < parsed.text.index(in_words)
    assert re.search(r"interaction, .*, is \+0\.0 points \[-\d+\.\d, \d+\.\d\]", parsed.text)


def test_the_bars_next_to_the_answer_have_every_arm_on_both_benchmarks(whole):
    text, _, _ = whole
    bars = text[text.index('<section id="answer"') : text.index('<section id="leak"')]
    for kind, name in (("vsil", "leaky"), ("vsil_free", "free")):
        for arm in ("T-SFT", "MM-SFT"):
            assert re.search(rf"{arm}: {name} \d", bars), (kind, arm)


def test_arms_that_have_no_benchmark_in_common_have_no_bars(tmp_path):
    """A leaky benchmark of one arm and a leak-free one of another: tables, and a page without that figure."""
    it = two_runs(tmp_path)
    for run, name in (("t", "leaky"), ("mm", "free")):
        shutil.rmtree(it / run / "evaluation" / name)
    text, _, _ = page_of(it)
    assert "answer-bars" not in text


def test_damage_is_named_and_the_rest_is_shown(runs):
    t = RunFolder(runs / "t")
    (t.evaluation / "free" / "responses.jsonl").write_text("{")
    (t.evaluation / "leaky" / "rows.jsonl").write_text("{")
    (t.evaluation / "benign" / "rows.jsonl").write_text('{"id": "0", "prompt": 5}\n')
    (t.path / "log.jsonl").write_text("{")
    t.curve_file.write_text("[]")
    write_json(t.path / "leakage.j.json", {"set": "x"})
    hurt = RunFolder(runs / "hurt")
    hurt.path.mkdir()
    hurt.manifest_file.write_text("{")
    _, parsed, payload = page_of(runs)
    for said in (
        "free: its responses are not shown",
        "rows.jsonl: its requests are not shown",
        "benign: a line of rows.jsonl does not hold the request (KeyError(",
        "log.jsonl is damaged, so its curves are not drawn",
        "curve.json is damaged, so it is not drawn",
        "leakage.j.json: damaged",
        "hurt: damaged: ",
    ):
        assert said in parsed.text, said
    assert [method["name"] for method in payload["methods"]] == ["T-SFT", "MM-SFT"]
    free = [i for i, item in enumerate(payload["items"]) if item["set"] == 1]
    assert {payload["answers"][0][i] for i in free} == {None}
    assert all(payload["answers"][1][i] for i in free)


def test_figures_take_the_pages_colours_and_have_no_id_twice(whole):
    text, parsed, _ = whole
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "var(--ink)" in text
    referred = set(re.findall(r'(?:xlink:href="#|url\(#)([\w.-]+)', text))
    assert referred <= set(ids)
    assert [attributes["aria-label"][:12] for tag, attributes in parsed.elements if tag == "svg"]


def test_leakage_stands_beside_the_papers(runs):
    share = {"value": 0.5, "low": 0.4, "high": 0.6}
    told = {
        "set": "safebench",
        "judge": "vlm_requests",
        "judge_version": "1 (m)",
        "n_valid": 9,
        "R1": share,
        "R2": None,
    }
    write_json(
        runs / "leakage" / "safebench" / "leakage.vlm_requests.json", told | {"gap": share, "text_unsafe": share}
    )
    _, parsed, _ = page_of(runs)
    assert "50.0 [40.0, 60.0]" in parsed.text
    assert "GPT-4o: 75.15, 70.2* (table 7)" in parsed.text


def test_a_page_of_a_model_as_it_is_says_that_nothing_can_be_compared(tmp_path):
    answered(tmp_path / "runs" / "a", tmp_path / "images", name="vanilla", method=None, view=None)
    _, parsed, payload = page_of(tmp_path / "runs")
    assert "There are no two arms to compare here" in parsed.text
    assert payload["first"] == {"set": 1, "method": 0, "second": None}


@pytest.mark.parametrize("argument", ["examples=-1", "images_mb=-2"])
def test_numbers_below_nothing_are_refused(runs, capsys, argument):
    assert main(["report", f"runs={runs}", argument]) == 2
    assert "expected 0 or more" in capsys.readouterr().err


def test_what_another_judge_judged_is_not_drawn_beside_the_others(runs):
    """Two judges' rates are no one image."""
    for name in ("leaky", "free"):
        file = runs / "mm" / "evaluation" / name / "summary.rule.json"
        write_json(file, json.loads(file.read_text()) | {"prompt_hash": "another"})
    _, parsed, _ = page_of(runs)
    assert re.search(r"Not drawn, .*judge.*: MM-SFT\.", parsed.text)
