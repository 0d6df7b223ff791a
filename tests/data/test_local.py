"""Local files: every column read, every fault named with its file, row and column."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from align.data.images import drop_missing, load_image
from align.data.local import read_file
from align.errors import UserError
from align.settings import Part


def read(part):
    return read_file("source=local", part, part.role).rows


def write(folder, *records):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def test_the_same_rows_from_jsonl_json_csv_and_parquet(tmp_path):
    import csv

    import pyarrow as pa
    import pyarrow.parquet

    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    records = [
        {
            "id": "1",
            "prompt": "p",
            "image": "a.png",
            "response": "r",
            "role": "harmful",
            "harm_in": "image",
            "extra": "x",
        },
        {"id": "2", "prompt": "q", "image": "", "response": "s", "role": "benign", "harm_in": "", "extra": "y"},
    ]
    write(tmp_path, *records)
    (tmp_path / "rows.json").write_text(json.dumps(records))
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, records[0])
        writer.writeheader()
        writer.writerows(records)
    pyarrow.parquet.write_table(pa.Table.from_pylist(records), tmp_path / "rows.parquet")
    first, *others = [
        read(Part(path=str(tmp_path / f"rows.{ending}"))) for ending in ("jsonl", "json", "csv", "parquet")
    ]
    assert all(rows == first for rows in others)
    assert [(row.id, row.role, row.harm_in, len(row.images)) for row in first] == [
        ("1", "harmful", "image", 1),
        ("2", "benign", "none", 0),
    ]
    assert first[0].columns == {"extra": "x"}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"question": "p"}, "row 1: no column `prompt`; found question"),
        ({"prompt": "\ud800"}, "row 1: `prompt` is not valid Unicode"),
        ({"prompt": 3}, "row 1: `prompt` is 3 (int), expected text"),
        ({"prompt": "p", "role": "evil"}, "row 1: role is 'evil', expected harmful or benign"),
        ({"prompt": "p", "role": "harmful", "harm_in": "air"}, "row 1: harm_in is 'air'"),
        ({"prompt": "p", "image": "../a.png"}, "row 1: image path '../a.png' leads outside its folder"),
        ({"prompt": "p", "image": "/etc/passwd"}, "row 1: image path '/etc/passwd' leads outside its folder"),
        ({"prompt": "p", "image": 7}, "row 1: `image` is 7 (int), expected a path"),
        ([1], "row 1: expected an object with columns, found list"),
    ],
)
def test_a_faulty_row_is_named(tmp_path, record, expected):
    file = write(tmp_path, record)
    with pytest.raises(UserError) as error:
        read(Part(path=str(file), role="benign"))
    assert expected in str(error.value)
    assert "rows.jsonl" in str(error.value)


def test_a_link_that_leads_outside_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match="leads outside"):
        read(Part(path=str(write(tmp_path / "data", {"prompt": "p", "image": "link.png", "role": "benign"}))))


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Part(), "source=local: .*give path=<folder, file or zip archive>"),
        (Part(path="/nowhere/x.jsonl"), "path=/nowhere/x.jsonl does not exist"),
    ],
)
def test_a_missing_file_is_named(part, expected):
    with pytest.raises(UserError, match=expected):
        read(part)


def test_an_unknown_format_an_empty_file_and_a_repeated_id_are_errors(tmp_path):
    (tmp_path / "rows.txt").write_text("x")
    with pytest.raises(UserError, match=r"unknown format with the ending .\.txt.; expected \.jsonl"):
        read(Part(path=str(tmp_path / "rows.txt")))
    with pytest.raises(UserError, match="no rows"):
        read(Part(path=str(write(tmp_path))))
    with pytest.raises(UserError, match="row 2: id 'a' .*twice"):
        read(Part(path=str(write(tmp_path, *[{"id": "a", "prompt": "p", "role": "benign"}] * 2))))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", b'[{"prompt": "p"'),
        ("rows.jsonl", b'{"prompt": "p"}\n{"prompt"'),
        ("rows.jsonl", b"\xff\xfe"),
        ("rows.json", b"[1, 2]"),
        ("rows.parquet", b"not parquet"),
        ("rows.csv", b"prompt,response\na,b,c\n"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read(Part(path=str(tmp_path / name), role="benign"))


def test_a_spreadsheets_csv_is_read(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbfprompt,response,harmful_response\np,r,\n")
    (row,) = read(Part(path=str(tmp_path / "rows.csv"), role="benign"))
    assert (row.prompt, row.response, row.harmful_response) == ("p", "r", None)


SAFE, HARMFUL = {"response": "s"}, {"harmful_response": "h"}
CHOSEN, REJECTED = {"chosen": "s"}, {"rejected": "h"}


@pytest.mark.parametrize(
    ("role", "given", "read_as"),
    [
        ("harmful", CHOSEN | REJECTED, SAFE | HARMFUL | CHOSEN | REJECTED),
        ("harmful", SAFE | HARMFUL, SAFE | HARMFUL | CHOSEN | REJECTED),
        ("harmful", SAFE, SAFE | CHOSEN),
        ("harmful", REJECTED, HARMFUL | REJECTED),
        ("benign", CHOSEN | REJECTED, SAFE | CHOSEN | REJECTED),  # what is not preferred need not be harmful
        ("benign", SAFE, SAFE | CHOSEN),
        ("harmful", {"response": "a", "chosen": "b", "rejected": "c", "harmful_response": "d"}, ...),
        ("benign", {"response": "a", "chosen": "b", "rejected": "c"}, ...),
        ("harmful", {}, {}),
    ],
)
def test_an_answer_under_one_name_is_read_under_both(tmp_path, role, given, read_as):
    """Every method can use what a source has, a preference set or one with safe and harmful answers."""
    (row,) = read(Part(path=str(write(tmp_path, {"prompt": "p"} | given)), role=role))
    answers = {name: getattr(row, name) for name in ("response", "harmful_response", "chosen", "rejected")}
    assert {name: answer for name, answer in answers.items() if answer} == (given if read_as is ... else read_as)


def test_an_image_beside_an_empty_list_of_images_is_kept(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (row,) = read(Part(path=str(write(tmp_path, {"prompt": "p", "images": [], "image": "a.png"})), role="harmful"))
    assert len(row.images) == 1
    assert row.harm_in == "image"


def test_a_harmful_row_without_image_has_its_harm_in_the_text(tmp_path):
    file = write(tmp_path, {"prompt": "p"})
    assert read_file("test", Part(path=str(file)), "harmful").rows[0].harm_in == "text"


def test_missing_images_are_an_error_by_default_and_counted_when_dropped(tmp_path):
    rows = read(
        Part(path=str(write(tmp_path, *[{"prompt": "p", "image": f"{i}.png"} for i in range(7)])), role="benign")
    )
    with pytest.raises(
        UserError, match=r"7 of 7 rows lack their image; 7 files absent: .*0\.png, .*on_missing_image=drop"
    ):
        drop_missing(rows, "error", "rows")
    kept, fact = drop_missing(rows, "drop", "rows")
    assert kept == []
    assert fact.startswith("rows: 7 of 7 rows lack their image")
    with pytest.raises(UserError, match="expected error or drop"):
        drop_missing(rows, "ignore", "rows")


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_an_unreadable_image_names_row_and_file(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    row = read(Part(path=str(write(tmp_path, {"prompt": "p", "image": "bad.png"})), role="benign"))[0]
    with pytest.raises(UserError, match=r"row x: image .*bad\.png cannot be read"):
        load_image(row.images[0], "row x")


def test_an_image_header_that_claims_too_much_is_refused_before_decoding(tmp_path):
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    row = read(Part(path=str(write(tmp_path, {"prompt": "p", "image": "bomb.png"})), role="benign"))[0]
    with pytest.raises(UserError, match="50000 x 50000|cannot be read"):
        load_image(row.images[0], "row x")


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)


@settings(max_examples=100, deadline=None)
@given(
    record=st.dictionaries(
        st.sampled_from(["prompt", "image", "images", "response", "role", "harm_in", "id", "caption", "x"]), VALUES
    )
)
def test_any_record_becomes_a_row_or_a_named_error(tmp_path_factory, record):
    file = write(tmp_path_factory.getbasetemp(), record)
    try:
        (row,) = read(Part(path=str(file), role="benign"))
    except UserError as error:
        assert "rows.jsonl, row 1" in str(error)  # noqa: PT017
    else:
        assert row.prompt == record["prompt"]
