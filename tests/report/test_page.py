"""The page: whole in one file, nothing in it that somebody wrote is more than text, nothing lost in silence."""

import json
import os
import re
import shutil
from html.parser import HTMLParser

import pytest
from PIL import Image

from align.cli import main
from align.files import write_json
from align.run_folder import RunFolder
from tests.support.answered_runs import answered

PLANTED = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</script><script>document.title='owned'</script>",
    "<!--",
    "{{ 7 * 7 }}{% raw %}",
    "\u2028&lt;'",
)
EVIL = " ".join(PLANTED)


class Elements(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, its text, and what stands in scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.scripts, self._inside = [], "", [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        else:
            self.text += data


def page_of(folder, *more):
    """(The page, its elements, what its browser of examples reads)."""
    assert main(["report", f"runs={folder}", *more]) == 0
    text = (folder / "report.html").read_text()
    parsed = Elements(text)
    (payload,) = [json.loads(script) for attributes, script in parsed.scripts if attributes.get("id") == "payload"]
    return text, parsed, payload


def two_runs(folder):
    answered(folder / "runs" / "t", folder / "images", answer="text alone says {i}")
    answered(folder / "runs" / "mm", folder / "images", answer="with images {i}", name="mm_sft", view="image")
    return folder / "runs"


@pytest.fixture
def runs(tmp_path):
    return two_runs(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The page of two runs, to be looked at."""
    return page_of(two_runs(tmp_path_factory.mktemp("whole")))


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


def test_nothing_that_somebody_wrote_is_more_than_text(tmp_path):
    quiet = {"name": EVIL, "view": "image", "model": EVIL, "variant": {EVIL: EVIL}, "git_commit": EVIL, "base": EVIL}
    quiet |= {"command": ["align", EVIL], "stopped": EVIL, "tuning": EVIL}
    it = answered(
        tmp_path / "runs" / "a", tmp_path / "images", EVIL.replace("{", "{{").replace("}", "}}"), EVIL, "{{}}" + PLANTED[1],
        categories=[EVIL, "b"] * 10, **quiet,
    )  # fmt: skip
    summary = it.evaluation / "free" / "summary.rule.json"
    write_json(summary, json.loads(summary.read_text()) | {"facts": [EVIL]})
    text, parsed, payload = page_of(tmp_path / "runs", f"title={PLANTED[0]}")
    assert [attributes for tag, attributes in parsed.elements if tag == "img"] == []
    executed = [script for attributes, script in parsed.scripts if attributes.get("type") != "application/json"]
    assert len(executed) == 1
    assert "owned" not in executed[0]
    assert not any(key.startswith("on") for _, attributes in parsed.elements for key in attributes)
    assert parsed.text.count("document.title='owned'") > 10  # it is there to be read
    assert payload["answers"][0][0][0] == EVIL
    assert "49" not in re.sub(r"[^{}0-9 *]", "", parsed.text).split()
    assert text.count("</script>") == 2


def test_any_two_methods_have_answers_to_the_same_items(whole):
    _, _, payload = whole
    assert [method["name"] for method in payload["methods"]] == ["T-SFT", "MM-SFT"]
    assert payload["first"] == {"set": 1, "method": 0, "second": 1}
    assert [payload["sets"][i]["name"] for i in range(3)] == ["leaky", "free", "benign"]
    place = next(i for i, item in enumerate(payload["items"]) if item["set"] == 1 and item["id"] == "3")
    assert [of_method[place] for of_method in payload["answers"]] == [
        ["text alone says 3", "unsafe", "a reason", ""],
        ["with images 3", "unsafe", "a reason", ""],
    ]
    item = payload["items"][place]
    assert (item["request"], item["category"], item["sub"], item["harmful"], item["tells"]) == (
        "question 3",
        "water",
        "sub water",
        True,
        False,
    )
    assert payload["answers"][0][0][3] == "c"  # the first answer was cut


def test_of_more_answers_than_fit_the_same_items_are_drawn_for_all_and_it_is_said(runs):
    _, _, payload = page_of(runs, "examples=60")
    assert [(one["name"], one["shown"], one["of"]) for one in payload["sets"]] == [
        ("leaky", 10, 20),
        ("free", 10, 20),
        ("benign", 10, 20),
    ]
    assert len(payload["items"]) == 30
    assert all(answer is not None for of_method in payload["answers"] for answer in of_method)
    _, _, again = page_of(runs, "examples=60")
    assert again["items"] == payload["items"]


def test_without_examples_nobodys_words_and_images_are_in_the_page(runs):
    text, parsed, payload = page_of(runs, "examples=0")
    assert (payload["items"], payload["images"]) == ([], {})
    assert "text alone says" not in text
    assert "examples" not in [attributes.get("id") for tag, attributes in parsed.elements if tag == "section"]


def test_a_image_stands_once_in_the_page_small(whole):
    _, _, payload = whole
    assert len(payload["images"]) == 5
    assert all(url.startswith("data:image/webp;base64,") for url in payload["images"].values())
    assert {item["image"] for item in payload["items"]} == set(payload["images"])


def test_images_that_do_not_fit_are_counted_and_say_so(runs):
    _, parsed, payload = page_of(runs, "images_mb=0")
    assert payload["images"] == {}
    assert {item["why"] for item in payload["items"]} == {"left out: the page is full (images_mb=)"}
    assert re.search(r"Images left out .*: 5\..*images_mb=", parsed.text)


def test_a_file_that_is_no_longer_the_image_is_not_shown(runs, tmp_path):
    Image.new("RGB", (400, 300), "red").save(tmp_path / "images" / "0.png")
    (tmp_path / "images" / "1.png").unlink()
    _, _, payload = page_of(runs)
    why = {item["id"]: item["why"] for item in payload["items"]}
    assert why["0"] == "not shown: the file is no longer the image that the model saw"
    assert why["1"] == "image not available: its file does not exist"
    assert why["2"] == ""


def test_images_that_a_benchmark_makes_itself_are_made_anew(tmp_path, tiny):
    evaluate = [
        "benchmark=mini_vsil_free",
        "limit=3",
        "generation.max_new_tokens=4",
        f"output_dir={tmp_path / 'runs' / 'a'}",
    ]
    assert main(["eval", f"model={tiny('llava')}", *evaluate]) == 0
    _, _, payload = page_of(tmp_path / "runs")
    assert len(payload["items"]) == 3
    assert all(payload["images"][item["image"]].startswith("data:image/png") for item in payload["items"])


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
        "log.jsonl is damaged, so its loss is not drawn",
        "curve.json is damaged, so it is not drawn",
        "leakage.j.json: damaged",
        "hurt: damaged: ",
    ):
        assert said in parsed.text, said
    assert [method["name"] for method in payload["methods"]] == ["T-SFT", "MM-SFT"]
    free = [i for i, item in enumerate(payload["items"]) if item["set"] == 1]
    assert {payload["answers"][0][i] for i in free} == {None}
    assert all(payload["answers"][1][i] for i in free)


def test_what_an_earlier_version_evaluated_has_answers_without_requests(runs):
    for name in ("t", "mm"):
        (runs / name / "evaluation" / "free" / "rows.jsonl").unlink()
    _, _, payload = page_of(runs)
    item = next(item for item in payload["items"] if item["set"] == 1)
    assert item["request"].startswith("unknown: an earlier version")
    assert item["harmful"]  # nobody knows, so its answer is blurred


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


def test_nothing_that_a_folder_names_is_imported(tmp_path, monkeypatch):
    """The name of a set is the name of a folder, which may be somebody else's; an image that is no file is made by our own sets alone."""
    it = answered(tmp_path / "runs" / "a", tmp_path / "images")
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path(__file__).with_name('owned').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (it.evaluation / "free").rename(it.evaluation / "evil:X")
    rows = [json.loads(line) for line in (it.evaluation / "evil:X" / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        row["images"][0]["path"] = None
    (it.evaluation / "evil:X" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page_of(tmp_path / "runs")
    assert not (tmp_path / "owned").exists()


def test_no_file_is_shown_that_is_not_known_to_be_what_the_model_saw(tmp_path):
    """Else a folder of somebody's could have any image of this machine put into a page, or wait for a pipe for ever."""
    it = answered(tmp_path / "runs" / "a", tmp_path / "images")
    os.mkfifo(tmp_path / "pipe")
    rows = [json.loads(line) for line in (it.evaluation / "free" / "rows.jsonl").read_text().splitlines()]
    rows[0]["images"][0]["pixels"] = None
    rows[1]["images"][0] |= {"path": str(tmp_path / "pipe"), "pixels": "0" * 64}
    (it.evaluation / "free" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, _, payload = page_of(tmp_path / "runs")
    why = {item["id"]: item["why"] for item in payload["items"] if item["set"] == 1}
    assert why["0"] == "not shown: the hash of its pixels was not stored"
    assert why["1"] == "image not available: its file does not exist"


def test_odd_verdicts_and_answers_are_text_to_the_page(tmp_path):
    it = answered(tmp_path / "runs" / "a", tmp_path / "images")
    for file, key in (("verdicts.rule.jsonl", "verdict"), ("responses.jsonl", "response")):
        place = it.evaluation / "free" / file
        lines = [
            json.loads(line) | {key: odd}
            for line, odd in zip(place.read_text().splitlines(), ["", None, 5, ["x"]] * 5, strict=True)
        ]
        place.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, _, payload = page_of(tmp_path / "runs")
    answers = [answer for item, answer in zip(payload["items"], payload["answers"][0], strict=True) if item["set"] == 1]
    assert all(isinstance(answer[1], str) and isinstance(answer[0], str | None) for answer in answers)


def test_what_another_judge_judged_is_not_drawn_beside_the_others(runs):
    """Two judges' rates are no one image."""
    for name in ("leaky", "free"):
        file = runs / "mm" / "evaluation" / name / "summary.rule.json"
        write_json(file, json.loads(file.read_text()) | {"prompt_hash": "another"})
    _, parsed, _ = page_of(runs)
    assert re.search(r"Not drawn, .*judge.*: MM-SFT\.", parsed.text)
