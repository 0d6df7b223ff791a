"""Images in cells: base64, data URLs and bytes are read; URLs and archives that are not read are named."""

import base64
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from align.cli import main
from align.data.assembly import read_source
from align.data.files.embedded import is_written_out
from align.data.images import drop_missing, load_image
from align.errors import UserError
from align.settings import Part
from tests.support.odd_images import png, saved
from tests.support.published import write_jsonl

RED = (200, 10, 10)
BASE64 = base64.b64encode(png(*RED)).decode()
WRITTEN = {
    "base64": BASE64,
    "base64 in lines": "\n".join(BASE64[i : i + 76] for i in range(0, len(BASE64), 76)),
    "a data URL": f"data:image/png;base64,{BASE64}",
    "a data URL with parameters": f"data:image/png;name=a.png;base64,{BASE64}",
    "a cell of datasets in json": {"bytes": BASE64, "path": None},
    "a list": [BASE64],
}


def read(folder, *images, **settings):
    write_jsonl(folder / "rows.jsonl", *({"prompt": f"What, {i}?", "image": one} for i, one in enumerate(images)))
    return read_source(Part(path=str(folder / "rows.jsonl"), role="benign", **settings)).rows


@pytest.mark.parametrize("form", WRITTEN)
def test_an_image_that_is_written_into_the_cell_is_read(tmp_path, form):
    (row,) = read(tmp_path, WRITTEN[form])
    assert load_image(row.images[0], "row x").getpixel((0, 0)) == RED


def test_an_image_is_kept_once_however_often_it_is_written(tmp_path):
    first, second = read(tmp_path, BASE64, f"data:image/png;base64,{BASE64}")
    assert first.images == second.images
    Path(first.images[0].path).write_bytes(b"damaged")  # not the whole image: a full disk, for example
    (again,) = read(tmp_path, BASE64)
    assert load_image(again.images[0], "row x").getpixel((0, 0)) == RED


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_any_format_of_image_is_known_in_base64(kind):
    from PIL import Image

    assert is_written_out(base64.b64encode(saved(Image.new("RGB", (8, 6)), kind)).decode())


@settings(max_examples=200, deadline=None)
@given(st.from_regex(r"([A-Za-z0-9_+-]{1,12}/){1,6}[A-Za-z0-9_+-]{1,30}(\.(png|jpg|JPEG))?", fullmatch=True))
def test_a_path_is_not_taken_for_an_image(path):
    assert not is_written_out(path)


@settings(deadline=None)
@given(text=st.text(min_size=0, max_size=400))
@example(text="It\u2019s a text of more than one line, in any script: \u65e5\u672c\u8a9e. " * 8)
def test_any_text_can_be_asked_whether_it_is_an_image(text):
    assert is_written_out(text) == (text[:5].lower() == "data:")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://example.org/cup.png", "the URL 'https://example.org/cup.png', and images are not downloaded"),
        ("s3://bucket/cup.png", "the URL 's3://bucket/cup.png'"),
        (["HTTP://example.org/cup"], "the URL 'HTTP://example.org/cup'"),
        ("data:image/svg+xml,<svg/>", r"a data URL of image/svg\+xml; expected data:image"),
        ("data:text/plain;base64,aGk=", "a data URL of text/plain;base64; expected"),
        ("data:nothing", "begins with `data:`"),
        (BASE64[:-3], "is not valid base64: .*; write the image again"),
    ],
)
def test_what_is_not_read_is_named_with_its_row(tmp_path, value, expected):
    with pytest.raises(UserError, match=expected) as error:
        read(tmp_path, "a.png", value)
    assert "rows.jsonl, row 2" in str(error.value)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("column", ["image", "a/b"])
def test_bytes_in_a_binary_column_of_parquet_are_images(tmp_path, column, many):
    value = [png(*RED)] if many else png(*RED)
    pq.write_table(
        pa.Table.from_pylist([{"prompt": "What?", column: value, "key": b"\0\1"}]), tmp_path / "rows.parquet"
    )
    part = Part(path=str(tmp_path / "rows.parquet"), role="benign", columns={"image": column})
    (row,) = read_source(part).rows
    assert load_image(row.images[0], "row x").getpixel((0, 0)) == RED


def test_images_in_a_compressed_archive_are_missing_and_it_is_said_how_to_unpack_it(tmp_path, capsys):
    (tmp_path / "0.png").write_bytes(png(*RED))
    with tarfile.open(tmp_path / "imgs.tar.gz", "w:gz") as opened:
        opened.add(tmp_path / "0.png", "imgs/0.png")
    rows = read(tmp_path, "imgs/0.png")
    with pytest.raises(UserError, match=r"1 of 1 rows .*imgs\.tar\.gz exists: .*unpack it: tar -xf imgs\.tar\.gz"):
        drop_missing(rows, "error", "data.own")
    assert main(["data", "source=local", f"path={tmp_path / 'rows.jsonl'}", "role=benign"]) == 0
    assert "tar -xf imgs.tar.gz" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"image_root=.*unpack it: tar -xf imgs\.tar\.gz"):
        read(tmp_path, "imgs/0.png", image_root=str(tmp_path / "imgs.tar.gz"))
    (tmp_path / "imgs").mkdir()  # unpacked in part: the archive is not the reason
    with pytest.raises(UserError, match="1 of 1 rows lack their image") as error:
        drop_missing(rows, "error", "data.own")
    assert "tar" not in str(error.value)


def test_the_records_of_datasets_in_json_lines_are_read(tmp_path):
    """`Dataset.to_json` writes an image as an object with its bytes in base64."""
    (row,) = read(tmp_path, {"bytes": BASE64, "path": "cup.png"})
    assert json.loads((tmp_path / "rows.jsonl").read_text())["image"]["path"] == "cup.png"
    assert load_image(row.images[0], "row x").getpixel((0, 0)) == RED
