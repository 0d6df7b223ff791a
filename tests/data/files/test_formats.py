"""The hub's cache: names are links to files without one, and what a file is is told by the link's
name or by how it begins.
"""

import json
import os
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align.data.assembly import read_source
from align.data.files.formats import ending_of
from align.data.files.image_bytes import exists
from align.data.images import load_image
from align.errors import UserError
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings, Part
from tests.support.odd_images import png
from tests.support.published import write_json, write_jsonl
from tests.support.set_files import write_tar, write_zip

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RED, BLUE = png(200, 10, 10), png(10, 10, 200)


def cached(folder: Path, cache: Path, links: str = "relative") -> Path:
    """The files of a folder as the hub's client keeps them: content in blobs/ under its hash, names
    in snapshots/<commit>/.
    """
    snapshot = cache / "snapshots" / COMMIT
    (cache / "blobs").mkdir(parents=True)
    for number, file in enumerate(sorted(one for one in folder.rglob("*") if one.is_file())):
        blob = cache / "blobs" / f"{number:040x}"
        shutil.move(file, blob)
        name = snapshot / file.relative_to(folder)
        name.parent.mkdir(parents=True, exist_ok=True)
        name.symlink_to(os.path.relpath(blob, name.parent) if links == "relative" else blob)
    return snapshot


@pytest.fixture(params=["folder", "zip", "tar"])
def vlsbench(request, tmp_path):
    """A snapshot of two rows, whose images are files, or in imgs.zip or imgs.tar."""
    folder = tmp_path / "downloaded"
    record = {"instruction": "What is this?", "category": "Cups", "sub_category": "Red cups"}
    write_json(folder / "data.json", [record | {"instruction_id": i, "image_path": f"imgs/{i}.png"} for i in range(2)])
    files = {"imgs/0.png": RED, "imgs/1.png": BLUE}
    if request.param == "zip":
        write_zip(files, folder / "imgs.zip")
    elif request.param == "tar":
        write_tar({f"./{name}": content for name, content in files.items()}, folder / "imgs.tar")
    else:
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    return cached(folder, tmp_path / "datasets--Foreshhh--vlsbench")


def test_a_snapshot_given_as_a_path_is_read_with_its_archives(vlsbench):
    rows = select_rows("vlsbench", "image", BenchmarkSettings(path=str(vlsbench))).rows
    assert [load_image(row.images[0], row.id).getpixel((0, 0)) for row in rows] == [(200, 10, 10), (10, 10, 200)]
    assert all(exists(row.images[0]) for row in rows)


def test_an_image_in_an_archive_is_named_by_the_link_and_not_by_its_blob(vlsbench):
    image = select_rows("vlsbench", "image", BenchmarkSettings(path=str(vlsbench))).rows[0].images[0]
    if image.inside:
        assert Path(image.path).name in ("imgs.zip", "imgs.tar")


def test_a_file_of_a_snapshot_may_be_named_and_its_images_lie_beside_it(vlsbench):
    rows = select_rows("vlsbench", "image", BenchmarkSettings(path=str(vlsbench / "data.json"))).rows
    assert [load_image(row.images[0], row.id).getpixel((0, 0)) for row in rows] == [(200, 10, 10), (10, 10, 200)]


def test_a_link_of_the_users_to_a_snapshot_is_one(vlsbench, tmp_path):
    (tmp_path / "mine").symlink_to(vlsbench)
    rows = select_rows("vlsbench", "image", BenchmarkSettings(path=str(tmp_path / "mine"))).rows
    assert load_image(rows[1].images[0], "row x").getpixel((0, 0)) == (10, 10, 200)


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_tables_of_a_snapshot_are_read(tmp_path, kind):
    folder = tmp_path / "downloaded"
    folder.mkdir()
    record = {"prompt": "What is this?", "role": "benign"}
    if kind == "jsonl":
        write_jsonl(folder / "rows.jsonl", record | {"image": "a.png"})
        (folder / "a.png").write_bytes(RED)
    elif kind == "json":
        write_json(folder / "rows.json", [record | {"image": "a.png"}])
        (folder / "a.png").write_bytes(RED)
    else:
        cell = {"bytes": RED, "path": "a.png"}
        pq.write_table(pa.Table.from_pylist([record | {"image": cell}]), folder / "rows.parquet")
    snapshot = cached(folder, tmp_path / "cache")
    for path in (snapshot, snapshot / f"rows.{kind}"):
        (row,) = read_source(Part(path=str(path))).rows
        assert load_image(row.images[0], "row x").getpixel((0, 0)) == (200, 10, 10)


def test_a_blob_whose_name_says_nothing_is_known_by_how_it_begins(tmp_path):
    zipped = write_zip({"imgs/0.png": RED}, tmp_path / "a")
    tarred = write_tar({"imgs/0.png": RED}, tmp_path / "b")
    pq.write_table(pa.Table.from_pylist([{"prompt": "p"}]), tmp_path / "c")
    write_jsonl(tmp_path / "d", {"prompt": "p"})
    assert [ending_of(tmp_path / name) for name in "abcd"] == [".zip", ".tar", ".parquet", ""]
    (tmp_path / "x.bin").symlink_to(tmp_path / "rows.jsonl")
    write_jsonl(tmp_path / "rows.jsonl", {"prompt": "p", "role": "benign"})
    assert ending_of(tmp_path / "x.bin") == ".jsonl"
    assert len(read_source(Part(path=str(tmp_path / "x.bin"))).rows) == 1
    for file in (zipped, tarred):
        assert ending_of(file) in (".zip", ".tar")
    assert ending_of(tmp_path / "absent") == ""
    with pytest.raises(UserError, match=r"d: .*format.* expected \.jsonl"):
        read_source(Part(path=str(tmp_path / "d")))


def test_a_whole_set_in_a_blob_is_a_zip_archive_whatever_its_name(tmp_path):
    record = {"prompt": "What is this?", "role": "benign", "image": "a.png"}
    write_zip({"rows.jsonl": json.dumps(record).encode(), "a.png": RED}, tmp_path / "blob")
    (row,) = read_source(Part(path=str(tmp_path / "blob"))).rows
    assert load_image(row.images[0], "row x").getpixel((0, 0)) == (200, 10, 10)


def test_a_link_out_of_the_cache_is_refused(vlsbench, tmp_path):
    (tmp_path / "elsewhere.json").write_text("[]")
    (vlsbench / "data.json").unlink()
    (vlsbench / "data.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(UserError, match=r"data.json is a link to .*elsewhere.json"):
        select_rows("vlsbench", "image", BenchmarkSettings(path=str(vlsbench)))


def test_a_tar_that_is_none_is_named(tmp_path):
    (tmp_path / "imgs.tar").write_bytes(b"no archive" * 100)
    record = {"instruction_id": 1, "instruction": "?", "category": "c", "sub_category": "s", "image_path": "imgs/1.png"}
    write_json(tmp_path / "data.json", [record])
    with pytest.raises(UserError, match=r"imgs.tar cannot be read"):
        select_rows("vlsbench", "image", BenchmarkSettings(path=str(tmp_path)))
    with tarfile.open(tmp_path / "imgs.tar", "w"):
        pass
    with pytest.raises(UserError, match="1 of 1 rows lack their image"):
        select_rows("vlsbench", "image", BenchmarkSettings(path=str(tmp_path)))
