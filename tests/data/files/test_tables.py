"""Tables: the same records in every form that can hold them, and a named error for every other content."""

import csv
import gzip
import io
import json
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align.data.files.formats import ending_of_name
from align.data.files.tables import records
from align.errors import UserError

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def lines(rows, **how):
    return "\n".join(json.dumps(row, **how) for row in rows)


def separated(rows, delimiter):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


JSON = {
    "lines in .jsonl": (".jsonl", lines),
    "lines in .ndjson": (".ndjson", lines),
    "a list": (".json", json.dumps),
    "lines in .json": (".json", lines),
    "objects over several lines": (".json", lambda rows: lines(rows, indent=1)),
    "a list in an object": (".json", lambda rows: json.dumps({"version": "1.0", "data": rows, "tags": ["a"]})),
    "an upper-case ending": (".JSONL", lines),
}
TEXT = {"csv": (".csv", lambda rows: separated(rows, ",")), "tsv": (".tsv", lambda rows: separated(rows, "\t"))}
TEXT |= {"an upper-case ending": (".TSV", lambda rows: separated(rows, "\t"))}
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
COLUMN = st.sampled_from(["a", "b c", "ü", "prompt"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)


def read(folder, ending, content, packed):
    file = folder / f"rows{ending}{'.gz' if packed else ''}"
    file.write_bytes(gzip.compress(content) if packed else content)
    return [dict(record) for record in records(file)]


@pytest.mark.parametrize("form", JSON)
@SLOW
@given(rows=st.lists(st.dictionaries(COLUMN, VALUES, min_size=1), min_size=2, max_size=4), packed=st.booleans())
def test_records_are_the_same_in_every_form_of_json(tmp_path, form, rows, packed):
    ending, written = JSON[form]
    assert read(tmp_path, ending, written(rows).encode(), packed) == rows


@pytest.mark.parametrize("form", TEXT)
@SLOW
@given(rows=st.lists(st.fixed_dictionaries({"a": WORDS, "b c": WORDS}), min_size=1, max_size=4), packed=st.booleans())
def test_texts_are_the_same_in_csv_and_tsv(tmp_path, form, rows, packed):
    ending, written = TEXT[form]
    absent = [{column: text or None for column, text in row.items()} for row in rows]
    assert read(tmp_path, ending, written(rows).encode(), packed) == absent


@SLOW
@given(
    content=st.binary(max_size=40)
    | st.text('[]{}":,0 a\n\t', max_size=40).map(str.encode)
    | st.binary(max_size=20).map(lambda some: gzip.compress(b'{"a": 1}\n' + some)[:-3]),
    ending=st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".ndjson", ".json.gz", ".csv.gz", ".parquet"]),
)
def test_any_content_gives_records_or_an_error_that_names_the_file(tmp_path, content, ending):
    (tmp_path / f"rows{ending}").write_bytes(content)
    try:
        for record in records(tmp_path / f"rows{ending}"):
            assert record.where.startswith(f"{tmp_path / f'rows{ending}'}, row ")
    except UserError as error:
        assert f"rows{ending}" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"train": [{"a": 1}], "test": [{"a": 2}]}', r"'train', 'test' are lists of records; write each list"),
        ('{"prompt": "p", "response": "r"}', "found an object with the keys 'prompt', 'response'; write a list"),
        ('[{"a": 1}]\n[{"a": 2}]', "Extra data: line 2"),
        ('{"a": 1}\n{"a": 2', "line 2"),
        ('{"a": 1}\n{"a": 2}\n{"a": 3, "a": 4}', "after row 2: the key 'a'"),
        ('{"a": 1}\n[1]', "row 2: expected an object with columns, found list"),
        ("3", "expected a list of records or an object of records, found 3"),
    ],
)
def test_json_of_another_form_is_named(tmp_path, content, expected):
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(UserError, match=expected):
        list(records(tmp_path / "rows.json"))


def test_a_compressed_table_in_a_zip_archive_and_one_without_its_ending_are_read(tmp_path):
    packed = gzip.compress(b'{"a": 1}\n')
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as opened:
        opened.writestr("rows.jsonl.gz", packed)
    (tmp_path / "rows.jsonl").write_bytes(packed)  # some servers name a compressed file so
    for file in (zipfile.Path(tmp_path / "set.zip") / "rows.jsonl.gz", tmp_path / "rows.jsonl"):
        assert [dict(record) for record in records(file)] == [{"a": 1}]


def test_a_field_of_csv_may_be_longer_than_csvs_own_limit(tmp_path):
    long = "x" * 200_000
    assert read(tmp_path, ".csv", f"a,b\n{long},1\n".encode(), packed=False) == [{"a": long, "b": "1"}]


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tgz", "SET.TAR.XZ", "set.7z"])
def test_a_compressed_archive_as_a_table_says_how_to_unpack_it(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=rf"{name}: .*not read in place; unpack it: (tar -xf|7z x) {name}"):
        list(records(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("rows.JSONL.GZ", ".jsonl.gz"),
        ("rows.v2.csv", ".csv"),
        ("imgs.tar.gz", ".tar.gz"),
        ("a.tgz", ".tgz"),
        ("notes.txt.gz", ".gz"),
        ("json", ""),
        (".json", ""),
    ],
)
def test_endings_of_names(name, ending):
    assert ending_of_name(name) == ending
