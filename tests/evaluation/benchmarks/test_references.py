"""A benchmark compares with no reference answer, and so needs none; a row to train on does, and is
named where it lacks one.
"""

import json

import pytest

from align.commands.data import main as data
from align.config.compose import compose_run
from align.data.assembly import read_source
from align.errors import UserError
from align.evaluation.selection import refuse_overlap_with_benchmarks, select_rows
from align.settings import BenchmarkSettings, Part
from tests.support.layouts import write_image, write_json
from tests.support.published import vlguard, write_jsonl

KINDS = ("vlguard_unsafes", "vlguard_safe_unsafes", "vlguard_safe_safes")
BLANK = ("", " ", None, ...)
"""Answers that a row may have for one that is lacking; `...` is no column."""


def without(record: dict, column: str, blank: object) -> None:
    if blank is ...:
        del record[column]
    else:
        record[column] = blank


@pytest.fixture(params=BLANK, ids=["empty", "spaces", "null", "absent"])
def blank(request):
    return request.param


@pytest.fixture
def half_answered(tmp_path, blank):
    """A function: split -> the folder of a VLGuard with a pair of each kind, all without their responses."""

    def make(split: str):
        root = vlguard(tmp_path / "vlguard", split)
        write_image(root / split / "posters" / "absent.jpg")
        records = json.loads((root / f"{split}.json").read_text())
        for record in records:
            for pair in record["instr-resp"]:
                without(pair, "response", blank)
        write_json(root / f"{split}.json", records)
        return root

    return make


def test_vlguards_test_set_is_read_without_its_responses(half_answered):
    settings = BenchmarkSettings(path=str(half_answered("test")))
    found = {kind: select_rows(kind, "image", settings).rows for kind in KINDS}
    assert [len(rows) for rows in found.values()] == [2, 2, 2]
    assert {row.response for rows in found.values() for row in rows} == {None}


def test_a_run_that_names_it_as_a_benchmark_is_checked_against_it(half_answered):
    root = half_answered("test")
    words = ["recipe=mm_sft", f"evaluate.data_root={root.parent}", "evaluate.benchmark=vlguard"]
    assert refuse_overlap_with_benchmarks(compose_run(words).config.evaluate, []) == []


def test_a_training_row_without_its_response_is_named(half_answered):
    with pytest.raises(UserError, match=r"train.json, row 1, `instr-resp` 1: `response` is (empty|absent)"):
        read_source(Part(source="vlguard", path=str(half_answered("train"))))


def test_a_local_benchmark_needs_no_answers_and_a_source_counts_blank_ones(tmp_path, blank):
    record = {"prompt": "How hot?", "response": "So.", "rejected": "Not so.", "role": "benign"}
    without(record, "response", blank)
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, record)
    (row,) = select_rows("local", "text", BenchmarkSettings(path=str(file))).rows
    assert (row.response, row.rejected) == (None, "Not so.")
    if blank in ("", " "):
        read = read_source(Part(path=str(file)))
        assert (read.rows[0].response, read.rows[0].chosen) == (blank, blank)  # what a run refuses or drops, as it says
        assert any("`response`" in fact and "rows-1" in fact for fact in read.facts)


@pytest.mark.parametrize("column", ["response", "benign_response", "caption", "benign_caption", "harmful_response"])
def test_twins_are_asked_without_the_texts_that_only_training_reads(tmp_path, column, blank):
    twin = {"id": "t", "image": "a.png", "benign_image": "b.png", "caption": "a cup", "benign_caption": "a hat"}
    twin |= {"query_leak": "How do I break it?", "query_free": "How do I use it?"}
    twin |= {"response": "Rather not.", "benign_response": "Wear it.", "harmful_response": "Drop it."}
    without(twin, column, blank)
    write_jsonl(tmp_path / "twins.jsonl", twin)
    for shade, name in enumerate(("a.png", "b.png")):
        write_image(tmp_path / name, shade)
    settings = BenchmarkSettings(path=str(tmp_path / "twins.jsonl"))
    assert len(select_rows("twins", "image", settings).rows) == 2
    assert select_rows("twins_vsil", "image", settings).rows[0].prompt == "How do I break it?"
    if column != "harmful_response":
        with pytest.raises(UserError, match=f"row 1: .*{column}"):
            read_source(Part(source="twins", subset="leak", path=str(tmp_path / "twins.jsonl")))


def test_siuos_blank_reference_is_none(tmp_path, blank):
    record = {"question_id": 1, "image": "a.png", "question": "Hot?", "category": "Tea", "reference_answer": "Wait."}
    without(record, "reference_answer", blank)
    write_json(tmp_path / "siuo_gen.json", [record])
    assert select_rows("siuo", "text", BenchmarkSettings(path=str(tmp_path))).rows[0].response is None


def test_align_data_shows_a_benchmark_without_references(half_answered, capsys):
    assert data(["benchmark=vlguard", f"path={half_answered('test')}", "summary=true"]) == 0
    assert [json.loads(line)["rows"] for line in capsys.readouterr().out.splitlines()] == [2, 2, 2]
