"""MIS: questions about two images each, in three files."""

import json
from pathlib import Path

import pytest

from align.cli import main
from align.errors import UserError
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings
from tests.support.judge_server import judge_server
from tests.support.layouts import HARMS, counted, summaries, write_image, write_json, zipped


def question(split, number, category="tea", **more):
    images = {f"image_path{i}": f"{split}_image/{number}/object{i}.png" for i in (1, 2)}
    text = {"question": f"How do I put the first into the second, {number}?", "category": category}
    return text | {"sub_category": "cups"} | images | more


def write(root):
    """Four questions, of which one lacks its second image; ids in one file only."""
    write_json(root / "mis_easy.json", [question("easy", 1, id=1), question("easy", 2, "cups", id=7)])
    write_json(root / "mis_hard.json", [question("hard", 1)])
    write_json(root / "mis_real.json", [question("real", 1)])
    for shade, place in enumerate(("easy_image/1", "easy_image/2", "hard_image/1", "real_image/1")):
        write_image(root / place / "object1.png", shade)
        if not place.startswith("real"):
            write_image(root / place / "object2.png", 100 + shade)
    return root


@pytest.mark.parametrize("layout", ["folder", "zip", "mis_test", "zipped images"])
def test_three_files_and_their_folders_of_images(tmp_path, layout, capsys):
    root = write(tmp_path / "mis" / "mis_test") if layout == "mis_test" else write(tmp_path / "mis")
    if layout == "zipped images":
        zipped(root / "easy_image")
    path = zipped(root) if layout == "zip" else tmp_path / "mis"
    (found,) = summaries(capsys, "benchmark=mis", f"path={path}")
    assert counted(found) == {
        "rows": 4,
        "roles": {"harmful": 4, "benign": 0},
        "harm_in": HARMS | {"image": 4},
        "images": 8,
        "missing_images": 1,
        "categories": {"tea": 3, "cups": 1},
        "facts": ["mis: 4 rows found, 2285 are published"],
    }
    assert found["with_image"] == 4


def test_each_row_has_both_images_in_their_order(tmp_path):
    path = str(write(tmp_path))
    rows = select_rows("mis", "image", BenchmarkSettings(path=path, subset="easy")).rows
    assert [row.id for row in rows] == ["easy-1", "easy-2"]
    assert [[Path(image.path).name for image in row.images] for row in rows] == [["object1.png", "object2.png"]] * 2
    assert [row.columns for row in rows] == [{"sub_category": "cups", "split": "easy"}] * 2
    assert len(select_rows("mis", "image", BenchmarkSettings(path=path, on_missing_image="drop")).rows) == 3


def test_a_model_is_asked_with_both_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mis")
    with judge_server() as server:
        words = [f"generation.base_url={server.url}", "generation.model=answerer", "output_dir=run", "judge=none"]
        assert main(["eval", "benchmark=mis", "path=mis", "subset=hard", *words]) == 0
        (body,) = [body for body in server.bodies if body["model"] == "answerer"]
    parts = [part["type"] for part in body["messages"][-1]["content"]]
    assert parts == ["image_url", "image_url", "text"]
    assert json.loads(Path("run/evaluation/mis/responses.jsonl").read_text().splitlines()[0])["id"] == "hard-1"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"image_path2": None}, "mis_easy.json, row 1: `image_path2` is empty"),
        ({"question": " "}, "mis_easy.json, row 1: `question` is empty"),
        ({"image_path1": "../1.png"}, "row 1: image path '../1.png' leads outside its folder"),
    ],
)
def test_a_question_that_cannot_be_used_is_named(tmp_path, more, message):
    write_json(tmp_path / "mis_easy.json", [question("easy", 1, **more)])
    with pytest.raises(UserError, match=message):
        select_rows("mis", "text", BenchmarkSettings(path=str(tmp_path), subset="easy"))
