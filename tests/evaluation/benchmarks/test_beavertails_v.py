"""BeaverTails-V: a table for each category, in two copies."""

import pytest

from align.errors import UserError
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings
from tests.support.layouts import HARMS, counted, summaries, write_parquet


def question(text, shade, category, **more):
    return {"question": text, "image": shade, "category": category, "image_severity": shade % 3 + 1} | more


RESPONSES = {"response_1": "Yes.", "response_2": "No.", "is_response_1_safe": "no", "is_response_2_safe": "yes"}
EXPECTED = {
    "rows": 3,
    "roles": {"harmful": 3, "benign": 0},
    "harm_in": HARMS | {"both": 3},
    "images": 3,
    "missing_images": 0,
    "categories": {"cold_tea": 2, "broken_cups": 1},
    "facts": ["beavertails_v: 2 categories found, 20 are published"],
}


def write(root, tea, cups):
    write_parquet(root / "cold_tea" / "evaluation.parquet", tea, "image")
    write_parquet(root / "cold_tea" / "train.parquet", tea, "image")  # not read
    write_parquet(root / "broken_cups" / "evaluation.parquet", cups, "image")


@pytest.mark.parametrize("place", ["data", "."])
def test_the_copy_with_two_responses_in_a_row(tmp_path, place, capsys):
    tea = [question("How hot?", 1, "cold_tea", **RESPONSES), question("How cold?", 2, "cold_tea", **RESPONSES)]
    write(tmp_path / place, tea, [question("How hot?", 3, "broken_cups", **RESPONSES)])
    (found,) = summaries(capsys, "benchmark=beavertails_v", f"path={tmp_path}")
    assert counted(found) == EXPECTED


def test_the_copy_with_a_row_for_each_response_gives_each_question_once(tmp_path, capsys):
    tea = [
        question(text, shade, "cold_tea", response=response, is_response_safe=safe)
        for text, shade in (("How hot?", 1), ("How cold?", 2))
        for response, safe in (("Yes.", "no"), ("No.", "yes"))
    ]
    cups = [question("How hot?", 3, "broken_cups", response="Very.", is_response_safe="yes")]
    write(tmp_path / "data", tea, cups)
    (found,) = summaries(capsys, "benchmark=beavertails_v", f"path={tmp_path}")
    assert counted(found) == EXPECTED
    rows = select_rows("beavertails_v", "image", BenchmarkSettings(path=str(tmp_path))).rows
    assert [row.id for row in rows] == ["broken_cups-1", "cold_tea-1", "cold_tea-3"]
    kept = BenchmarkSettings(path=str(tmp_path), where={"image_severity": 2})
    assert [row.id for row in select_rows("beavertails_v", "image", kept).rows] == ["cold_tea-1"]


def test_its_absence_is_named(tmp_path):
    with pytest.raises(UserError, match="beavertails_v: no file data/.*/evaluation.parquet"):
        select_rows("beavertails_v", "text", BenchmarkSettings(path=str(tmp_path)))
