"""MOSSBench: harmless questions, in an object of records."""

import pytest

from align.errors import UserError
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings
from tests.support.layouts import HARMS, counted, summaries, write_image, write_json, zipped


def scene(number, over="type 1", **more):
    return {
        "image": f"images/{number}.png",
        "short description": "A kettle",
        "question": "Describe a nice afternoon here.",
        "metadata": {"over": over, "human": 0, "child": 1, "syn": 1, "ocr": 0, "harm": [7]},
        "pid": str(number),
        "description": "",
    } | more


def write(root, index):
    scenes = {"1": scene(1), "2": scene(2, "type 2"), "17": scene(17, "type 2", pid=17)}
    write_json(root / index, scenes)
    write_image(root / "images" / "1.png", 1)
    write_image(root / "images" / "17.png", 17)
    return root


@pytest.mark.parametrize("zip_it", [False, True])
@pytest.mark.parametrize("index", ["information.json", "images_information/information.json"])
def test_mossbench_as_its_repository_lays_it_out_and_in_one_folder(tmp_path, index, zip_it, capsys):
    root = write(tmp_path / "mossbench", index)
    (found,) = summaries(capsys, "benchmark=mossbench", f"path={zipped(root) if zip_it else root}")
    assert counted(found) == {
        "rows": 3,
        "roles": {"harmful": 0, "benign": 3},
        "harm_in": HARMS | {"none": 3},
        "images": 3,
        "missing_images": 1,
        "categories": {"type 2": 2, "type 1": 1},
        "facts": ["mossbench: 3 rows found, 300 are published", "mossbench: 2 categories found, 3 are published"],
    }


def test_an_id_may_be_a_number_or_text(tmp_path):
    rows = select_rows("mossbench", "text", BenchmarkSettings(path=str(write(tmp_path, "information.json")))).rows
    assert [row.id for row in rows] == ["1", "2", "17"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"metadata": None},
            r"information.json, row '1': `metadata` is None .NoneType., expected an object with `over`",
        ),
        ({"metadata": {"human": 0}}, r"row '1': `metadata` is {'human': 0} .dict., expected an object with `over`"),
        ({"question": ""}, r"information.json, row '1': `question` is empty"),
        ({"image": "../1.png"}, r"row '1': image path '../1.png' leads outside its folder"),
    ],
)
def test_a_scene_that_cannot_be_used_is_named(tmp_path, more, message):
    write_json(tmp_path / "information.json", {"1": scene(1, **more)})
    with pytest.raises(UserError, match=message):
        select_rows("mossbench", "text", BenchmarkSettings(path=str(tmp_path)))
