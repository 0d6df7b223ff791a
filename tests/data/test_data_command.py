"""`align data`: what it says of sets with everything wrong, and what two have in common."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from align.cli import main
from align.data import images
from align.evaluation.benchmarks.safebench import PROMPT
from tests.support.odd_images import bomb, png
from tests.support.published import write_json, write_jsonl

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def wrong(tmp_path):
    """Six rows: a good one, one that repeats it, and images that are absent, no images, or both."""
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "a.png").write_bytes(png())
    Image.open(folder / "a.png").save(folder / "again.bmp")
    (folder / "page.png").write_bytes(b"<html>not found</html>")
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "folder.png").mkdir()
    write_jsonl(
        folder / "rows.jsonl",
        {"id": "good", "prompt": "What is this?", "image": "a.png", "role": "harmful", "category": "cups"},
        {"id": "again", "prompt": "what is THIS", "image": "again.bmp", "role": "harmful", "category": "cups"},
        {"id": "absent", "prompt": "And this?", "image": "absent.png", "role": "harmful"},
        {"id": "page", "prompt": "And that?", "image": "page.png", "response": "A page."},
        {"id": "both", "prompt": "Which of the two?", "images": ["folder.png", "bomb.png"]},
        {"id": "text", "prompt": "Hello [bold]there[/bold]"},
    )
    return folder


def data(capsys, *arguments):
    """(exit status, what was printed, what was said beside it)"""
    status = main(["data", *arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_a_set_with_everything_wrong_is_told_in_numbers(wrong, capsys):
    arguments = ("source=local", f"path={wrong}/rows.jsonl", "role=benign", "summary=true")
    status, printed, _ = data(capsys, *arguments)
    assert status == 0
    (line,) = printed.splitlines()
    told = json.loads(line)
    assert len(told.pop("fingerprint")) == 16
    assert told == {
        "source": "local",
        "rows": 6,
        "roles": {"harmful": 3, "benign": 3},
        "harm_in": {"text": 0, "image": 3, "both": 0, "none": 3},
        "with_image": 5,
        "images": 6,
        "missing_images": 2,  # one of them is a folder
        "unreadable_images": 2,  # one of them beside an image that is absent
        "duplicates": 1,
        "categories": {"cups": 2},
        "facts": [],
    }
    assert data(capsys, *arguments, "validate=true")[:2] == (1, printed)


def test_a_set_with_everything_wrong_is_told_in_words(wrong, capsys):
    status, printed, _ = data(capsys, "source=local", f"path={wrong}/rows.jsonl", "role=benign", "validate=true")
    assert status == 1
    lines = printed.splitlines()
    assert lines[:4] == [
        "source local: 6 rows (harmful 3, benign 3; harm in image 3, none 3)",
        "  5 with images, 6 different files; 1 duplicate rows",
        "  1 categories: cups 2",
        f"  2 images are missing: {wrong}/absent.png, {wrong}/folder.png",
    ]
    assert lines[4] == "  2 images cannot be read:"
    assert lines[5].startswith(f"    row page of wrong: image {wrong}/page.png cannot be read: UnidentifiedImageError")
    assert lines[6].startswith(f"    row both of wrong: image {wrong}/bomb.png cannot be read: DecompressionBombError")
    assert lines[7].startswith("  fingerprint ")


def test_a_set_that_is_whole_is_valid_and_one_that_cannot_be_read_is_no_set(wrong, capsys):
    rows = [json.loads(line) for line in (wrong / "rows.jsonl").read_text().splitlines()]
    write_jsonl(wrong / "rows.jsonl", rows[0], rows[1], rows[5])
    arguments = ("source=local", f"path={wrong}/rows.jsonl", "role=benign", "summary=true", "validate=true")
    assert data(capsys, *arguments)[0] == 0
    (wrong / "rows.jsonl").write_text('{"prompt": "p"}\n{"prompt"')
    status, printed, said = data(capsys, *arguments)
    assert (status, printed) == (2, "")
    assert f"{wrong}/rows.jsonl: cannot be read after row 1" in said.replace("\n", "")


def test_the_same_rows_are_shown_for_the_same_seed(wrong, capsys):
    def shown(*arguments):
        _, printed, _ = data(capsys, "source=local", f"path={wrong}/rows.jsonl", "role=benign", *arguments)
        return printed[printed.index("fingerprint") :].split("\n\n")[1:]

    three = shown("sample=3", "seed=1")
    assert len(three) == 3
    assert three == shown("sample=3", "seed=1") != shown("sample=3", "seed=2")
    every = "\n\n".join(shown("sample=99"))
    assert "text (benign, harm in none)\n  prompt: Hello [bold]there[/bold]" in every
    assert f"image: {wrong}/a.png, 8 x 6" in every
    assert f"image: {wrong}/absent.png, image {wrong}/absent.png does not exist" in every
    assert "  response: A page." in every


def test_a_summary_is_all_that_is_printed_where_rows_are_shown_too(wrong, capsys):
    _, printed, said = data(
        capsys, "source=local", f"path={wrong}/rows.jsonl", "role=benign", "summary=true", "sample=2"
    )
    assert json.loads(printed)["rows"] == 6
    assert said.count("prompt: ") == 2
    status, _, said = data(capsys, "source=local", f"path={wrong}/rows.jsonl", "role=benign", "sample=0")
    assert (status, "sample=0: expected at least 1" in said) == (2, True)


def test_rows_that_a_model_cannot_use_are_counted_by_kind(tiny, tmp_path, capsys):
    rows = [{"id": f"r{i}", "prompt": "what is this", "response": "a cup"} for i in range(20)]
    rows[3]["response"], rows[7]["prompt"] = "red " * 300, "what is <image> this"
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["source=local", f"path={tmp_path / 'own.jsonl'}", "role=benign", "validate=true"]
    assert main(["data", *words]) == 0
    assert main(["data", *words, f"model={tiny('llava')}", "summary=true"]) == 1
    long, token = json.loads(capsys.readouterr().out.splitlines()[-1])["bad_rows"]
    assert ("1 row " in long, "r3" in long, "128" in long) == (True, True, True)
    assert ("1 row " in token, "r7" in token, "<image>" in token) == (True, True, True)


# What two sets have in common


def vlsbench(folder):
    record = {"category": "Cups", "sub_category": "Red", "instruction_id": 0, "image_path": "imgs/0.png"}
    (folder / "imgs").mkdir(parents=True)
    Image.linear_gradient("L").resize((9, 7)).save(folder / "imgs" / "0.png", compress_level=9)
    (folder / "imgs" / "1.png").write_bytes(b"no image")
    other = {"instruction_id": 1, "image_path": "imgs/1.png", "instruction": "Where does it stand?"}
    write_json(folder / "data.json", [record | {"instruction": "What is in the cup?"}, record | other])


def safebench(folder):
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "query_SafeBench_1_1_6.png").write_bytes(png(1, 2, 3))
    with (folder / "safebench.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["dataset", "category_id", "task_id", "category_name", "question", "instruction"])
        lines.writerow(["SafeBench", "1", "1", "Cups", "How is a cup made?", "Ways to make a cup."])


def test_what_a_source_has_in_common_with_benchmarks_is_told(tmp_path, capsys):
    vlsbench(tmp_path / "vlsbench")
    safebench(tmp_path / "safebench")
    mine = tmp_path / "mine"
    mine.mkdir()
    Image.open(tmp_path / "vlsbench" / "imgs" / "0.png").save(mine / "other-name.png", compress_level=0)
    assert (mine / "other-name.png").read_bytes() != (tmp_path / "vlsbench" / "imgs" / "0.png").read_bytes()
    write_jsonl(
        mine / "rows.jsonl",
        {"id": "image", "prompt": "Describe it.", "image": "other-name.png"},
        {"id": "question", "prompt": "what is in the CUP"},
        {"id": "shared", "prompt": PROMPT},  # SafeBench's one sentence names none of its items
        {"id": "unreadable", "prompt": "Where does it stand"},
    )
    arguments = ("source=local", f"path={mine}/rows.jsonl", "role=benign", "benchmark=vlsbench,safebench")
    status, printed, _ = data(capsys, *arguments, f"data_root={tmp_path}", "summary=true")
    assert status == 0
    source, leak_free, leaky = map(json.loads, printed.splitlines())
    assert "overlap" not in source
    assert leak_free["overlap"] == {
        "source": "local",
        "images": {"pairs": 1, "first": [["image", "0"]]},
        "questions": {"pairs": 2, "first": [["question", "0"], ["unreadable", "1"]]},
        "questions_over_other_images": {"pairs": 0, "first": []},
    }
    assert leak_free["unreadable_images"] == 1
    assert leak_free["facts"][0] == "vlsbench: 2 rows found, 2241 are published"
    assert leaky["overlap"]["images"] == leaky["overlap"]["questions"] == {"pairs": 0, "first": []}
    _, printed, _ = data(capsys, *arguments, f"data_root={tmp_path}")
    assert "  images in common with source local: 1 (image = 0)" in printed
    assert "  questions in common with source local: 2 (question = 0, unreadable = 1)" in printed


def test_a_second_look_at_two_sets_decodes_nothing_of_either(tmp_path, monkeypatch, capsys):
    vlsbench(tmp_path / "vlsbench")
    (tmp_path / "vlsbench" / "imgs" / "1.png").write_bytes(png())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").write_bytes(png(7, 8, 9))
    write_jsonl(tmp_path / "mine" / "rows.jsonl", {"prompt": "p", "image": "a.png"})
    decoded, load = [], images.load_image
    monkeypatch.setattr(images, "load_image", lambda image, where: decoded.append(image) or load(image, where))
    for expected in (3, 0):
        images._pixel_hash.cache_clear()
        decoded.clear()
        arguments = ("source=local", f"path={tmp_path}/mine/rows.jsonl", "role=benign", "benchmark=vlsbench")
        assert data(capsys, *arguments, f"data_root={tmp_path}", "summary=true")[0] == 0
        assert len(decoded) == expected


def test_a_fingerprint_is_of_texts_roles_and_pixels_whatever_the_files_are_called(tmp_path, capsys):
    image = Image.linear_gradient("L").resize((9, 7)).convert("RGB")
    rows = [{"prompt": "What is this?", "response": "A cup.", "role": "harmful"}, {"prompt": "Hello", "role": "benign"}]

    def fingerprint(name, image=image, ending=".png", rows=rows, kind="jsonl"):
        folder = tmp_path / name
        folder.mkdir()
        image.save(folder / f"{name}{ending}")
        records = [rows[0] | {"image": f"{name}{ending}"}, *rows[1:]]
        if kind == "jsonl":
            write_jsonl(folder / f"{name}.jsonl", *records)
        elif kind == "parquet":
            cell = {"image": {"bytes": (folder / f"{name}{ending}").read_bytes(), "path": None}}
            pq.write_table(pa.Table.from_pylist([records[0] | cell, *records[1:]]), folder / f"{name}.parquet")
        else:
            with (folder / f"{name}.csv").open("w", newline="") as file:
                lines = csv.DictWriter(file, ["image", *rows[0]])
                lines.writeheader()
                lines.writerows(records)
        status, printed, said = data(capsys, "source=local", f"path={folder}/{name}.{kind}", "summary=true")
        assert status == 0, said
        return json.loads(printed)["fingerprint"]

    same = fingerprint("a")
    assert fingerprint("b") == fingerprint("c", ending=".bmp") == same
    assert fingerprint("d", kind="csv") == fingerprint("e", kind="parquet") == same
    other = image.copy()
    other.putpixel((0, 0), (1, 0, 0))
    changed = [
        fingerprint("f", other),
        fingerprint("g", rows=[rows[0] | {"prompt": "What is that?"}, rows[1]]),
        fingerprint("h", rows=[rows[0] | {"response": "A hat."}, rows[1]]),
        fingerprint("i", rows=[rows[0] | {"role": "benign"}, rows[1]]),
        fingerprint("j", rows=rows[:1]),
    ]
    assert len({same, *changed}) == 6
