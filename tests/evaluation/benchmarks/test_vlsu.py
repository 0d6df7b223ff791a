"""VLSU: one file of graded pairs, three benchmarks."""

import pytest

from align.errors import UserError
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings
from tests.support.layouts import HARMS, counted, summaries, write_csv, write_image, zipped


def pair(name, image, text, together, category="C3: Tea"):
    return {
        "prompt": f"May I pour this, {name}?",
        "image_grade": image,
        "consensus_text_grade": text,
        "consensus_combined_grade": together,
        "image_category": "",
        "text_category": "",
        "combined_category": category,
        "web_path": f"https://example.com/{name}.png",
        "uuid": name,
    }


PAIRS = [
    pair("a", "safe", "safe", "unsafe"),
    pair("b", "Unsafe", "safe", "unsafe"),  # one copy spells grades with capitals
    pair("c", "safe", "borderline", "unsafe", "C4: Cups"),
    pair("d", "safe", "unsafe", "unsafe"),
    pair("e", "borderline", "safe", "safe", ""),
    pair("f", "safe", "safe", "borderline"),
    pair("g", "safe", "safe", "not_sure"),
]


@pytest.mark.parametrize("layout", ["repository", "folder", "zip"])
def test_grades_make_three_benchmarks(tmp_path, layout, capsys):
    root = tmp_path / "vlsu"
    write_csv(root / ("data/VLSU.csv" if layout == "repository" else "VLSU.csv"), PAIRS)
    for shade, name in enumerate(("a.jpg", "b.png", "c.jpg", "e.png", "f.jpg")):  # d's and g's addresses are dead
        write_image(root / "images" / name, shade)
    free, leaky, benign = summaries(capsys, "benchmark=vlsu", f"path={zipped(root) if layout == 'zip' else root}")
    whole = "7 rows found in the whole data set, 8187 are published"
    assert counted(free) == {
        "rows": 2,
        "roles": {"harmful": 2, "benign": 0},
        "harm_in": HARMS | {"image": 2},
        "images": 2,
        "missing_images": 0,
        "categories": {"C3: Tea": 2},
        "facts": [f"vlsu_vsil_free: {whole}"],
    }
    assert counted(leaky) == {
        "rows": 2,
        "roles": {"harmful": 2, "benign": 0},
        "harm_in": HARMS | {"text": 2},
        "images": 2,
        "missing_images": 1,
        "categories": {"C4: Cups": 1, "C3: Tea": 1},
        "facts": [f"vlsu_vsil: {whole}"],
    }
    assert counted(benign) == {
        "rows": 1,
        "roles": {"harmful": 0, "benign": 1},
        "harm_in": HARMS | {"none": 1},
        "images": 1,
        "missing_images": 0,
        "categories": {},
        "facts": [f"vlsu_benign: {whole}"],
    }


def test_grades_select_rows(tmp_path):
    write_csv(tmp_path / "VLSU.csv", PAIRS)
    settings = BenchmarkSettings(path=str(tmp_path), where={"image_grade": "unsafe"})
    assert [row.id for row in select_rows("vlsu_vsil_free", "text", settings).rows] == ["b"]


def test_an_unknown_grade_is_named(tmp_path):
    write_csv(tmp_path / "VLSU.csv", [pair("a", "safe", "safe", "harmless")])
    with pytest.raises(
        UserError, match=r"VLSU.csv, row 1: `consensus_combined_grade` is 'harmless', expected one of s"
    ):
        select_rows("vlsu_benign", "text", BenchmarkSettings(path=str(tmp_path)))
