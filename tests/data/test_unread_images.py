"""A column of images under another name is not dropped silently: an error where images are wanted,
a fact where others are read.
"""

import base64
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align.cli import main
from align.config.compose import compose_run
from align.data.assembly import training_data
from align.data.files.unread import looks_like_image
from align.errors import UserError
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings
from tests.support.odd_images import png
from tests.support.published import write_json, write_jsonl

ROW = {"prompt": "What is it?", "response": "A cup.", "role": "benign"}
CELL = {"bytes": png(), "path": None}
VALUES = {
    "a path": "imgs/0.PNG",
    "a list of paths": ["a.jpg", "b.jpeg"],
    "an address": "https://example.org/cup.webp",
    "a data URL": "data:image/png;base64,iVBORw0KGgo",
    "base64": base64.b64encode(png()).decode(),
    "a cell of datasets": CELL,
    "a list of cells": [CELL],
    "bytes": png(),
}


@pytest.fixture
def parts(tmp_path):
    """A function: what the part `own` holds -> a run with it beside a part whose images are read."""
    (tmp_path / "there.png").write_bytes(png(1, 2, 3))
    write_jsonl(
        tmp_path / "other.jsonl", ROW | {"image": "there.png"}, ROW | {"prompt": "And it?", "image": "there.png"}
    )

    def data(records, *words, kind="jsonl"):
        file = tmp_path / f"own.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(records), file)
        else:
            write_jsonl(file, *records)
        own = ("recipe=mm_sft", "data.harmful=null", "data.benign=null", f"data.own.path={file}")
        return training_data(compose_run([*own, f"data.other.path={tmp_path / 'other.jsonl'}", *words]).config)

    return data


@pytest.mark.parametrize("column", ["image_path", "img", "image_file", "image_name", "images_path", "picture"])
def test_the_columns_of_the_file_are_listed_and_what_to_do(parts, column):
    with pytest.raises(UserError) as error:
        parts([ROW | {column: "imgs/0.png", "note": "of a cup"}])
    said = str(error.value)
    assert said.startswith("data.own: no row has an image")
    assert f"`{column}` (" in said
    assert "own.jsonl, row 1" in said
    assert f"prompt, response, role, {column}, note" in said
    assert f"data.own.columns.image={column}" in said
    assert "data.own.view=text" in said


@pytest.mark.parametrize("kind", VALUES)
def test_whatever_form_the_images_have(parts, kind):
    assert looks_like_image(VALUES[kind])
    form = "parquet" if "cell" in kind or kind == "bytes" else "jsonl"
    with pytest.raises(UserError, match="data.own: no row has an image, .*`pic`"):
        parts([ROW | {"pic": VALUES[kind]}], kind=form)


@pytest.mark.parametrize(
    "value",
    [
        "see a.png\nand b.png",
        "A cup.",
        "png",
        "",
        None,
        3,
        True,
        {},
        [],
        {"path": "notes.txt"},
        ["a.png", "b"],
        b"text",
    ],
)
def test_what_is_no_image_is_not_taken_for_one(value):
    assert not looks_like_image(value)


def test_a_part_that_is_meant_without_images_says_so_by_its_view(parts):
    data = parts([ROW | {"url": "https://example.org/cup.jpg"}], "data.own.view=text")
    assert [row.id.partition("/")[0] for row in data.rows] == ["own", "other", "other"]
    assert parts([ROW | {"url": "a.jpg"}], "view=text", "allow_label_conflict=true").rows


def test_a_model_that_answers_would_miss_them_too(parts):
    record = {"prompt": "What is it?", "role": "benign", "image_path": "a.png"}
    with pytest.raises(UserError, match="data.own: no row has an image"):
        parts([record], "data.own.view=text", "data.own.response=generate")


def test_a_column_that_names_files_now_and_then_is_none_of_images(parts):
    records = [ROW | {"prompt": f"What, {i}?", "note": "a.png" if i == 0 else f"seen {i}"} for i in range(3)]
    assert len(parts(records).rows) == 5


def test_beside_images_that_are_read_it_is_a_fact(parts, tmp_path):
    (tmp_path / "a.png").write_bytes(png(4, 5, 6))
    data = parts([ROW | {"image": "a.png", "second_image": "b.png"}])
    (fact,) = [fact for fact in data.facts if "second_image" in fact]
    assert fact.startswith("data.own: ")


@pytest.mark.parametrize(
    ("source", "record"),
    [
        ("alpaca", {"instruction": "What is it?", "output": "A cup."}),
        ("llava_instruct", {"conversations": [{"from": "human", "value": "Hot?"}, {"from": "gpt", "value": "Yes."}]}),
    ],
)
def test_other_sources_of_images_that_they_do_not_read_say_so_too(parts, tmp_path, source, record):
    write_json(tmp_path / "rows.json", [record | {"picture": ["a.png"]}])
    with pytest.raises(UserError, match=r"data.third: no row has an image, .*`picture` \(.*rows.json, row 1"):
        parts([ROW], f"data.third={{source: {source}, path: {tmp_path / 'rows.json'}}}")


def test_a_local_benchmark_says_so_where_a_view_shows_images(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", {"prompt": "Hot?", "image_path": "a.png"})
    settings = BenchmarkSettings(path=str(tmp_path / "rows.jsonl"))
    with pytest.raises(UserError, match="benchmark local: no row has an image, .*`image_path`"):
        select_rows("local", "image", settings)
    assert len(select_rows("local", "text", settings).rows) == 1


def test_align_data_and_align_calibrate_say_so(tmp_path, capsys):
    write_jsonl(tmp_path / "rows.jsonl", ROW | {"image_path": "a.png", "label": "correct"})
    assert main(["data", "source=local", f"path={tmp_path / 'rows.jsonl'}", "summary=true"]) == 0
    assert "`image_path`" in json.loads(capsys.readouterr().out)["facts"][0]
    judge = ["judge=vlsbench", "judge.base_url=http://127.0.0.1:9/v1", "judge.model=m", "judge.retries=0"]
    assert main(["calibrate", f"path={tmp_path / 'rows.jsonl'}", *judge, f"output_dir={tmp_path}"]) == 2
    assert "align calibrate: no row has an image" in capsys.readouterr().err
