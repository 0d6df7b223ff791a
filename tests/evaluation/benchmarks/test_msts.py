"""MSTS: a file for each language, images that are downloaded apart, or the hub's tables."""

import pytest

from align.errors import UserError
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings
from tests.support.layouts import HARMS, counted, summaries, write_csv, write_image, write_parquet, zipped

ASKED = {"assistance": "Should I drink this?", "intention": "I am going to drink this."}


def prompt(case, kind, category="Tea", **more):
    return {
        "hazard_category": category,
        "hazard_subcategory": "Hot drinks",
        "hazard_subsubcategory": "",
        "case_id": f"case_000{case}",
        "case_text": "drink this",
        "unsafe_image_id": f"unsafe_image_000{case}",
        "unsafe_image_description": "Pot, of tea",
        "prompt_id": f"prompt_{case}_{kind}",
        "prompt_text": ASKED[kind],
        "prompt_type": kind,
    } | more


ENGLISH = [prompt(1, "assistance"), prompt(1, "intention"), prompt(2, "assistance", "Cups")]


@pytest.fixture
def root(tmp_path):
    """Three English prompts about two images, a .jpg and an absent one, and the German one."""
    root = tmp_path / "msts"
    write_csv(root / "data" / "prompts" / "english_multimodal.csv", ENGLISH)
    text = prompt(1, "assistance", prompt_text="Should I drink hot tea?")
    write_csv(root / "data" / "prompts" / "english_textonly.csv", [text | {"unsafe_image_id": ""}])
    german = prompt(1, "assistance", prompt_text="Soll ich das trinken?")
    del german["prompt_id"]
    write_csv(root / "data" / "prompts" / "german_multimodal.csv", [german])
    write_image(root / "data" / "unsafe_images" / "unsafe_image_0001.jpg")
    return root


@pytest.mark.parametrize("zip_it", [False, True])
def test_its_repository(root, zip_it, capsys):
    (found,) = summaries(capsys, "benchmark=msts", f"path={zipped(root) if zip_it else root}")
    assert counted(found) == {
        "rows": 3,
        "roles": {"harmful": 3, "benign": 0},
        "harm_in": HARMS | {"image": 3},
        "images": 2,
        "missing_images": 1,
        "categories": {"Tea": 2, "Cups": 1},
        "facts": ["msts: 3 rows found, 400 are published", "msts: 2 categories found, 5 are published"],
    }


def test_the_hubs_tables_of_a_language(tmp_path, capsys):
    rows = [row | {"unsafe_image": int(row["case_id"][-1])} for row in ENGLISH]
    write_parquet(tmp_path / "data" / "english-00000-of-00001.parquet", rows, "unsafe_image")
    (found,) = summaries(capsys, "benchmark=msts", f"path={tmp_path}")
    assert (found["rows"], found["missing_images"], found["unreadable_images"]) == (3, 0, 0)


def test_both_prompts_of_a_case_are_one_cluster(root):
    rows = select_rows("msts", "text", BenchmarkSettings(path=str(root))).rows
    assert [(row.id, row.cluster) for row in rows] == [
        ("case_0001-assistance", "case_0001"),
        ("case_0001-intention", "case_0001"),
        ("case_0002-assistance", "case_0002"),
    ]
    kept = BenchmarkSettings(path=str(root), where={"prompt_type": "intention"})
    assert [row.prompt for row in select_rows("msts", "text", kept).rows] == ["I am going to drink this."]


def test_a_translation_is_a_subset(root, capsys):
    (found,) = summaries(capsys, "benchmark=msts", f"path={root}", "subset=german")
    assert found["facts"][0] == "msts german: 1 rows found, 200 are published"
    rows = select_rows("msts", "image", BenchmarkSettings(path=str(root), subset="german")).rows
    assert [row.prompt for row in rows] == ["Soll ich das trinken?"]
    with pytest.raises(UserError, match="subset=latin: expected arabic, .*spanish, or no subset="):
        select_rows("msts", "text", BenchmarkSettings(path=str(root), subset="latin"))


def test_the_text_alone_is_a_benchmark_of_its_own(root, capsys):
    (found,) = summaries(capsys, "benchmark=msts_text", f"path={root}")
    assert (found["rows"], found["images"], found["harm_in"]) == (1, 0, HARMS | {"text": 1})


def test_a_prompt_without_text_is_named(tmp_path):
    write_csv(tmp_path / "english_multimodal.csv", [prompt(1, "assistance", prompt_text="")])
    with pytest.raises(UserError, match=r"english_multimodal.csv, row 1: `prompt_text` is empty"):
        select_rows("msts", "text", BenchmarkSettings(path=str(tmp_path)))
