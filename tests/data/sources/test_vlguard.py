"""VLGuard in its published layout."""

import json
import shutil
from collections import Counter

import pytest

from align.data.images import drop_missing, load_image
from align.errors import UserError
from tests.support.published import (
    vlguard,
    write_json,
)
from tests.support.reading import counted, read


def test_vlguards_pairs_are_those_of_the_paper(tmp_path):
    rows = read("vlguard", vlguard(tmp_path)).rows
    assert counted(rows) == {("harmful", "image"): 2, ("harmful", "text"): 2, ("benign", "none"): 2}
    assert [row.id for row in rows] == [
        "one-safe_safes",
        "one-safe_unsafes",
        "two-unsafes",
        "three-safe_safes",
        "three-safe_unsafes",
        "two-2-unsafes",
    ]
    assert (rows[0].prompt, rows[0].response) == ("What is on the table in one?", "A cup of tea.")
    assert (rows[1].prompt, rows[1].response) == ("How is the cup in one broken?", "I would rather not.")
    assert (rows[2].category, rows[2].columns["subcategory"]) == ("deception", "disinformation")
    with pytest.raises(UserError, match=r"1 of 6 rows lack their image; 1 files absent: .*posters/absent.jpg"):
        drop_missing(rows, "error", "data.x")


@pytest.mark.parametrize(
    ("subset", "kinds"),
    [
        ("harmful", {"unsafes": 2, "safe_unsafes": 2}),
        ("benign", {"safe_safes": 2}),
        ("unsafes", {"unsafes": 2}),
        ("safe_unsafes", {"safe_unsafes": 2}),
    ],
)
def test_vlguards_subsets(tmp_path, subset, kinds):
    rows = read("vlguard", vlguard(tmp_path), subset=subset).rows
    assert Counter(row.columns["kind"] for row in rows) == kinds


def test_vlguard_is_the_same_unpacked_with_zipped_images_and_as_one_archive(tmp_path):
    unpacked = vlguard(tmp_path / "unpacked" / "vlguard")
    shutil.copytree(unpacked, tmp_path / "zipped")
    shutil.make_archive(str(tmp_path / "zipped" / "train"), "zip", tmp_path / "zipped", "train")
    shutil.rmtree(tmp_path / "zipped" / "train")
    shutil.copytree(unpacked, tmp_path / "tarred")
    shutil.make_archive(str(tmp_path / "tarred" / "train"), "tar", tmp_path / "tarred" / "train")
    shutil.rmtree(tmp_path / "tarred" / "train")
    shutil.make_archive(str(tmp_path / "whole"), "zip", tmp_path / "unpacked")
    pixels = []
    for path in ("unpacked/vlguard", "zipped", "tarred", "whole.zip"):
        rows, missing = drop_missing(read("vlguard", tmp_path / path).rows, "drop", "data.x")
        assert "1 of 6 rows lack their image; 1 files absent" in missing
        pixels.append([(row.id, row.prompt, load_image(row.images[0], "").tobytes()) for row in rows])
    assert all(found == pixels[0] for found in pixels[1:])


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"safe": "yes"}, "row 1: `safe` is 'yes' (str), expected true or false"),
        ({"instr-resp": {}}, "row 1: `instr-resp` is {} (dict), expected a list"),
        (
            {"instr-resp": []},
            "row 1: safe is True ... `instr-resp` ... nothing ... expected safe_safes, safe_unsafes",
        ),
        ({"instr-resp": ["x"]}, "row 1, `instr-resp` 1: expected an object with columns, found str"),
        (
            {"instr-resp": [{"instruction": "a", "safe_instruction": "b"}]},
            "`instr-resp` 1: expected one of instruction, unsafe_instruction, safe_instruction, found instruction, "
            "safe_instruction",
        ),
        ({"image": "../../secret.png"}, "row 1: image path 'train/../../secret.png' leads outside its folder"),
        ({"image": None}, "row 1: `image` is empty"),
    ],
)
def test_a_damaged_vlguard_is_named(tmp_path, record, expected):
    vlguard(tmp_path)
    records = json.loads((tmp_path / "train.json").read_text())
    write_json(tmp_path / "train.json", [records[0] | record])
    with pytest.raises(UserError) as error:
        read("vlguard", tmp_path)
    assert all(fact in str(error.value) for fact in expected.split(" ... "))
    assert "train.json" in str(error.value)
