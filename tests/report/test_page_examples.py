"""Examples in the page: answers of any two methods to the same items, their images, and what is left out."""

import re

from PIL import Image

from align.cli import main
from tests.support.pages import page_of


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


def test_what_an_earlier_version_evaluated_has_answers_without_requests(runs):
    for name in ("t", "mm"):
        (runs / name / "evaluation" / "free" / "rows.jsonl").unlink()
    _, _, payload = page_of(runs)
    item = next(item for item in payload["items"] if item["set"] == 1)
    assert item["request"].startswith("unknown: an earlier version")
    assert item["harmful"]  # nobody knows, so its answer is blurred
