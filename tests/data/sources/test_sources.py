"""What all sources share: selections, duplicates, where files are, what is refused."""

import json
import re
import shutil

import pytest

from align.commands.data import main as align_data
from align.data.assembly import read_source
from align.errors import UserError
from align.settings import Part
from tests.support.published import (
    mssbench,
    vlguard,
    write_jsonl,
)
from tests.support.reading import read


def test_a_selection_is_seeded_and_in_the_files_own_order(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", *({"prompt": f"Question {i}", "response": "Yes"} for i in range(100)))

    def chosen(seed):
        return [row.prompt for row in read("local", tmp_path / "rows.jsonl", role="benign", rows=5, seed=seed).rows]

    assert chosen(0) == chosen(0) != chosen(1)
    numbers = [int(prompt.split()[1]) for prompt in chosen(0)]
    assert numbers == sorted(numbers)
    whole = read("local", tmp_path / "rows.jsonl", role="benign", rows=101)
    assert len(whole.rows) == 100
    (fact,) = whole.facts
    assert re.match(r"rows=101\b.*\b100\b", fact)


def test_duplicates_are_told_by_words_and_pixels_and_left_out_on_request(tmp_path):
    folder = vlguard(tmp_path)
    shutil.copy(folder / "train" / "kitchen" / "one.png", folder / "same.png")
    rows = [
        {"prompt": "What is this?", "image": "train/kitchen/one.png"},
        {"prompt": "what is this", "image": "same.png"},  # the same words and pixels
        {"prompt": "What is this?", "image": "train/kitchen/three.png"},
        {"prompt": "Hello"},
        {"prompt": "hello!"},
        {"prompt": "?!"},
        {"prompt": "..."},  # a text of signs alone is itself
    ]
    write_jsonl(folder / "rows.jsonl", *rows)
    found = read("local", folder / "rows.jsonl", role="benign", deduplicate=True)
    assert [row.id for row in found.rows] == ["rows-1", "rows-3", "rows-4", "rows-6", "rows-7"]
    (fact,) = found.facts
    assert re.match(r"2 rows .*repeat an earlier .*\(deduplicate: true\)", fact)


def test_a_folder_with_tables_of_several_formats_says_which_to_choose_from(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", {"prompt": "p"})
    (tmp_path / "b.csv").write_text("prompt\nq\n")
    with pytest.raises(UserError, match=r"several formats \(a.jsonl, b.csv\).*: path=<file>"):
        read("local", tmp_path, role="benign")
    assert len(read("local", tmp_path / "b.csv", role="benign").rows) == 1


def test_a_image_has_one_name_from_wherever_a_run_is_started(tmp_path, monkeypatch):
    vlguard(tmp_path / "made")
    shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    assert read("vlguard", "set.zip").rows == read("vlguard", tmp_path / "set.zip").rows


@pytest.mark.parametrize(
    ("source", "more", "expected"),
    [
        ("vlguard", {"subset": "unsafe"}, "source=vlguard: subset=unsafe: expected one of harmful, benign, unsafes"),
        ("vlguard", {"twins": True}, "source=vlguard twins=true: give subset=<name>, one of leak, benign"),
        (
            "vlguard",
            {"twins": True, "subset": "free"},
            "image_free and caption_free cannot .*text_leak, image_leak and shuffled_leak can.*source=mssbench",
        ),
        ("mssbench", {"twins": True, "subset": "leak"}, "text_leak, image_leak, shuffled_leak and caption_free cannot"),
        ("pku_saferlhf", {}, "source=pku_saferlhf: give subset=<name>, one of harmful, benign, mixed"),
        ("spa_vl", {"subset": "half"}, "source=spa_vl: subset=half: expected one of train, validation; without"),
        ("spa_vl", {"twins": True}, "twins=true: .*vlguard and mssbench have items"),
        (
            "vlguard",
            {"role": "benign"},
            "role=benign: 4 rows of source vlguard are harmful, first one-safe_unsafes",
        ),
    ],
)
def test_what_a_source_has_not_is_refused(tmp_path, source, more, expected):
    vlguard(tmp_path)
    mssbench(tmp_path)
    with pytest.raises(UserError, match=expected):
        read(source, tmp_path, **more)


@pytest.mark.parametrize(
    ("source", "hub"), [("vlguard", "ys-zong/VLGuard"), ("spa_vl", "sqrti/SPA-VL"), ("pku_saferlhf", "PKU-Alignment/")]
)
def test_a_source_without_files_says_where_they_are_to_be_had(source, hub):
    subset = "benign" if source == "pku_saferlhf" else None
    with pytest.raises(UserError, match=f"give path=<folder, file or zip archive>, path={hub}"):
        read_source(Part(source=source, subset=subset))


def test_a_data_root_has_sets_by_name(tmp_path, monkeypatch, capsys):
    vlguard(tmp_path / "vlguard")
    shutil.make_archive(str(tmp_path / "mssbench"), "zip", mssbench(tmp_path / "made"))
    assert len(read_source(Part(source="vlguard"), str(tmp_path)).rows) == 6
    monkeypatch.setenv("VSIL_ALIGN_DATA", str(tmp_path))
    assert len(read_source(Part(source="mssbench", twins=True, subset="free")).rows) == 4
    assert align_data(["source=vlguard", "summary=true"]) == 0
    told = json.loads(capsys.readouterr().out)
    told.pop("fingerprint")
    assert told == {
        "source": "vlguard",
        "rows": 6,
        "roles": {"harmful": 4, "benign": 2},
        "harm_in": {"text": 2, "image": 2, "both": 0, "none": 2},
        "with_image": 6,
        "images": 4,
        "missing_images": 1,
        "unreadable_images": 0,
        "duplicates": 0,
        "categories": {"deception": 2},
        "facts": [],
    }
    with pytest.raises(UserError, match="data_root=/nowhere: not a folder"):
        read_source(Part(source="vlguard"), "/nowhere")
