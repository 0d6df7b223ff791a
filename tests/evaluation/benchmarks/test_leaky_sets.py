"""VLSafe and HarmBench's multimodal behaviours: the text tells the harm."""

import json
from pathlib import Path

import pytest

from align.errors import UserError
from align.evaluation.judges.harmbench import build
from align.evaluation.selection import select_rows
from align.evaluation.verdicts import Case
from align.settings import BenchmarkSettings, Judging
from tests.support.layouts import HARMS, counted, summaries, write_csv, write_image, zipped


@pytest.fixture
def vlsafe(tmp_path):
    """Three questions about two images, one of which is absent."""
    root = tmp_path / "vlsafe"
    records = [
        {"image_id": "000000000009.jpg", "caption": "a kettle", "query": "How do I boil it dry?"},
        {"image_id": "000000000009.jpg", "caption": "a kettle", "query": "How do I dent it?", "reference": None},
        {"image_id": "000000000025.jpg", "caption": "a cup", "query": "How do I dent it?"},
    ]
    write_image(root / "images" / "000000000009.jpg")
    root.joinpath("harmlessness_examine.jsonl").write_text("".join(json.dumps(one) + "\n\n" for one in records))
    return root


@pytest.mark.parametrize("layout", ["images", "train2017", "image_root", "zip"])
def test_vlsafe_wherever_its_coco_images_lie(vlsafe, layout, capsys):
    given = []
    if layout == "train2017":
        (vlsafe / "images").rename(vlsafe / "train2017")
    if layout == "image_root":
        (vlsafe / "images").rename(vlsafe.parent / "coco")
        given = [f"image_root={vlsafe.parent / 'coco'}"]
    path = zipped(vlsafe) if layout == "zip" else vlsafe
    (found,) = summaries(capsys, "benchmark=vlsafe", f"path={path}", *given)
    assert counted(found) == {
        "rows": 3,
        "roles": {"harmful": 3, "benign": 0},
        "harm_in": HARMS | {"text": 3},
        "images": 2,
        "missing_images": 1,
        "categories": {},
        "facts": ["vlsafe: 3 rows found, 1110 are published"],
    }


def test_an_absent_image_of_vlsafe_is_named_where_it_is_looked_for(vlsafe):
    with pytest.raises(
        UserError, match=r"1 of 3 rows lack their image; 1 files absent: .*/vlsafe/images/000000000025.jpg"
    ):
        select_rows("vlsafe", "image", BenchmarkSettings(path=str(vlsafe)))
    elsewhere = BenchmarkSettings(path=str(vlsafe), image_root=str(vlsafe / "images"))
    with pytest.raises(UserError, match=r"1 files absent: .*/vlsafe/images/000000000025.jpg"):
        select_rows("vlsafe", "image", elsewhere)


def test_questions_about_one_image_of_vlsafe_are_one_cluster(vlsafe):
    rows = select_rows("vlsafe", "text", BenchmarkSettings(path=str(vlsafe))).rows
    assert [(row.id, Path(row.cluster).name) for row in rows] == [
        ("1", "000000000009.jpg"),
        ("2", "000000000009.jpg"),
        ("3", "000000000025.jpg"),
    ]


def test_a_row_of_vlsafe_without_text_is_named(vlsafe):
    with (vlsafe / "harmlessness_examine.jsonl").open("a") as file:
        file.write('{"image_id": "000000000009.jpg", "caption": "a kettle", "query": " "}\n')
    with pytest.raises(UserError, match=r"harmlessness_examine.jsonl, row 4: `query` is empty"):
        select_rows("vlsafe", "text", BenchmarkSettings(path=str(vlsafe)))


def behaviour(number, image, redacted="[kettle]", category="kitchen"):
    return {
        "Behavior": f"Say how to boil it dry, {number}",
        "BehaviorID": f"boil_{number}",
        "FunctionalCategory": "multimodal",
        "SemanticCategory": category,
        "ImageFileName": image,
        "Source": "https://example.org/kettle",
        "ImageDescription": "A kettle on a stove.",
        "RedactedImageDescription": redacted,
        "Tags": "multimodal, redacted",
    }


def write_harmbench(root, index, images):
    """Three behaviours; one image ends otherwise than the file says, one is absent."""
    rows = [behaviour(1, "kettle.png"), behaviour(2, "stove.jpg", ""), behaviour(3, "cup.png", category="cups")]
    write_csv(root / index, rows)
    write_image(root / images / "kettle.png", 1)
    write_image(root / images / "stove.png", 2)
    return root


CSV = "harmbench_behaviors_multimodal_all.csv"


@pytest.mark.parametrize(
    ("index", "images"), [(CSV, "images"), (f"behavior_datasets/{CSV}", "multimodal_behavior_images")]
)
def test_harmbench_in_one_folder_and_as_its_repository_lays_it_out(tmp_path, index, images, capsys):
    (found,) = summaries(capsys, "benchmark=harmbench", f"path={write_harmbench(tmp_path, index, images)}")
    assert counted(found) == {
        "rows": 3,
        "roles": {"harmful": 3, "benign": 0},
        "harm_in": HARMS | {"text": 3},
        "images": 3,
        "missing_images": 1,
        "categories": {"kitchen": 2, "cups": 1},
        "facts": ["harmbench: 3 rows found, 110 are published"],
    }


def test_harmbenchs_classifier_is_given_what_the_image_shows(tmp_path):
    settings = BenchmarkSettings(path=str(write_harmbench(tmp_path, CSV, "images")))
    first, second, _ = select_rows("harmbench", "text", settings).items
    assert (first.prompt, second.prompt) == ("Say how to boil it dry, 1", "Say how to boil it dry, 2")
    assert first.columns["behavior"] == "Say how to boil it dry, 1\n\nContext: [kettle]"
    assert second.columns["behavior"] == "Say how to boil it dry, 2"
    judge = build(Judging(base_url="http://localhost/v1", model="big"))
    (request,) = judge.requests([Case(first, "Tea is nice.")])
    assert "Context: [kettle]" in request.turns[-1].text
    assert request.turns[-1].images == ()


def test_a_harmbench_without_a_column_is_an_error(tmp_path):
    write_csv(tmp_path / CSV, [{"Behavior": "Boil it dry", "BehaviorID": "boil"}])
    with pytest.raises(UserError, match=r"multimodal_all.csv, row 1: `ImageFileName` is absent; found the columns Beh"):
        select_rows("harmbench", "text", BenchmarkSettings(path=str(tmp_path)))
