"""`columns.<field>=<column>`: a file with other column names is read as the same file with ours, everywhere
that reads your own files.
"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.cli import main
from align.config.compose import compose, compose_eval, compose_run
from align.config.fingerprint import fingerprint
from align.data.assembly import read_source, training_data
from align.data.local import FIELDS, read_file
from align.errors import UserError
from align.evaluation.selection import select_rows, selections_of, settings_of
from align.settings import BenchmarkSettings, LeakageConfig, Part
from tests.support.odd_images import png
from tests.support.published import write_json, write_jsonl

OURS = {
    "id": "r1",
    "prompt": "What is it?",
    "image": "a.png",
    "response": "A cup.",
    "chosen": "A red cup.",
    "rejected": "A hat.",
    "harmful_response": "Bad.",
    "role": "harmful",
    "harm_in": "image",
    "category": "cups",
    "caption": "A cup.",
    "twin": "t1",
    "note": "n",
}
THEIRS = {"question": "What is it?", "pic": "a.png", "answer": "A cup.", "note": "n"}
MAPPED = ["columns.prompt=question", "columns.response=answer", "columns.image=pic"]


@pytest.fixture(autouse=True)
def image(tmp_path):
    (tmp_path / "a.png").write_bytes(png())


def columns(file, **given):
    return Part(path=str(file), role="benign", columns=given)


@settings(max_examples=50, deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
        | st.sampled_from(FIELDS),
        min_size=len(FIELDS) - 1,
        max_size=len(FIELDS) - 1,
        unique=True,
    )
)
def test_any_names_of_the_columns_give_the_same_row(tmp_path_factory, names):
    """Also our own names of other fields: `chosen` and `rejected` may be swapped."""
    folder = tmp_path_factory.getbasetemp()
    (folder / "a.png").write_bytes(png())
    given = dict(zip((field for field in FIELDS if field != "images"), names, strict=True))
    write_jsonl(folder / "ours.jsonl", {field: OURS[field] for field in given})
    write_jsonl(folder / "theirs.jsonl", {name: OURS[field] for field, name in given.items()})
    ours = read_file("test", Part(path=str(folder / "ours.jsonl")), None).rows
    assert read_file("test", Part(path=str(folder / "theirs.jsonl"), columns=given), None).rows == ours


def test_a_column_that_is_given_to_a_field_is_not_read_for_another_one(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", {"caption": "What is it?", "images": "a.png"})
    (row,) = read_source(columns(tmp_path / "rows.jsonl", prompt="caption", image="images")).rows
    assert (row.prompt, row.caption, len(row.images)) == ("What is it?", None, 1)


def test_other_columns_are_kept_under_their_own_names(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", THEIRS | {"prompt": "system text"})
    (row,) = read_source(columns(tmp_path / "rows.jsonl", prompt="question", image="pic")).rows
    assert row.prompt == "What is it?"
    assert row.columns == {"answer": "A cup.", "note": "n", "prompt": "system text"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"promt": "question"}, r"columns\.promt=question: there is no field 'promt' \(did you mean 'prompt'\?\)"),
        (
            {"prompt": "qestion"},
            r"row 1: no column `qestion` \(did you mean 'question'\?\), which columns\.prompt=qestion",
        ),
        (
            {"prompt": "question", "category": "kind"},
            r"rows\.jsonl, row 1: no column `kind`, which columns\.category=kind names; found the columns question, "
            r"pic, answer, note\. Correct columns\.category=",
        ),
        ({}, r"row 1: no column `prompt`; found question, pic, answer, note\. Proposed: columns\.prompt=question"),
    ],
)
def test_a_mapping_that_does_not_fit_is_named(tmp_path, given, expected):
    write_jsonl(tmp_path / "rows.jsonl", THEIRS, THEIRS)
    with pytest.raises(UserError, match=expected):
        read_source(columns(tmp_path / "rows.jsonl", **given))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"question": 3}, "`question` is 3 .int., expected text"),
        ({"question": None}, "`question` is null, expected text"),
        ({"question": "p", "pic": 7}, "`pic` is 7 .int., expected a path"),
        ({"question": "p", "kind": "evil"}, "kind is 'evil', expected harmful or benign"),
    ],
)
def test_a_faulty_value_is_named_by_the_column_of_the_file(tmp_path, record, expected):
    write_jsonl(tmp_path / "rows.jsonl", {"question": "p", "pic": None, "kind": None}, record)
    with pytest.raises(UserError, match=f"row 2: {expected}"):
        read_source(columns(tmp_path / "rows.jsonl", prompt="question", image="pic", role="kind"))


def test_a_column_that_only_some_rows_have_is_there(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", {"question": "p"}, {"question": "q", "pic": "a.png"})
    rows = read_source(columns(tmp_path / "rows.jsonl", prompt="question", image="pic")).rows
    assert [len(row.images) for row in rows] == [0, 1]


def run(tmp_path, *words):
    part = f"data.own={{source: local, path: {tmp_path / 'rows.jsonl'}, role: benign}}"
    return compose_run(["recipe=mm_sft", "data.harmful=null", "data.benign=null", part, *words])


def test_a_training_run_reads_the_columns_that_it_is_given(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", THEIRS)
    mapped = [f"data.own.{one}" for one in MAPPED]
    (row,) = training_data(run(tmp_path, *mapped).config).rows
    assert (row.prompt, row.response, len(row.images)) == ("What is it?", "A cup.", 1)
    with pytest.raises(UserError, match="Proposed: " + " ".join(mapped[:1])):
        training_data(run(tmp_path).config)


def test_the_column_of_images_is_named_as_it_is_typed(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", {"prompt": "p", "response": "r", "image_path": "a.png"})
    with pytest.raises(UserError, match=r"Set data\.own\.columns\.image=image_path; if the rows have no images, set"):
        training_data(run(tmp_path).config)


def test_a_mapping_is_a_part_of_the_fingerprint_and_no_mapping_changes_no_fingerprint(tmp_path):
    plain, mapped = run(tmp_path), run(tmp_path, "data.own.columns.prompt=question")
    assert fingerprint(plain.config) != fingerprint(mapped.config)
    assert "columns" not in str(plain.origins)
    assert "data.own.columns.prompt=question" in str(mapped.origin("data.own.columns.prompt"))


@pytest.mark.parametrize("name", ["007", "true", "yes", "a b", "1.50", "a: b"])
def test_a_column_may_have_any_name(tmp_path, name):
    config = run(tmp_path, f"data.own.columns.prompt={name}").config
    assert config.data["own"].columns == {"prompt": name}


@pytest.mark.parametrize("prefix", ["", "settings.local."])
def test_an_own_benchmark_is_read_by_its_columns(tmp_path, prefix):
    write_jsonl(tmp_path / "rows.jsonl", THEIRS)
    given = [
        "benchmark=local",
        *(f"{prefix}{one}" for one in (f"path={tmp_path / 'rows.jsonl'}", "role=benign", *MAPPED)),
    ]
    (chosen,) = selections_of(compose_eval(["model=mini_llava", *given]).config)
    assert (chosen.benchmark.kind, chosen.rows[0].prompt, chosen.rows[0].response) == (
        "benign",
        "What is it?",
        "A cup.",
    )
    assert settings_of(compose(LeakageConfig, given).config, "local").columns["prompt"] == "question"


def test_an_error_of_a_benchmark_names_the_option_as_it_is_typed(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", THEIRS)
    config = compose_eval(["model=mini_llava", "benchmark=local", f"path={tmp_path / 'rows.jsonl'}"]).config
    with pytest.raises(UserError, match=r"Proposed: columns\.prompt=question"):
        selections_of(config)
    with pytest.raises(UserError, match=r"Proposed: evaluate\.settings\.local\.columns\.prompt=question"):
        selections_of(
            run(
                tmp_path, "evaluate.benchmark=local", f"evaluate.settings.local.path={tmp_path / 'rows.jsonl'}"
            ).config.evaluate
        )


@pytest.mark.parametrize("given", [{"columns": {"prompt": "q"}}, {"role": "benign"}])
def test_a_published_benchmark_has_its_own_columns(tmp_path, given):
    with pytest.raises(UserError, match=rf"benchmark vlsbench: {next(iter(given))}= has no effect"):
        select_rows("vlsbench", "image", BenchmarkSettings(path=str(tmp_path), **given))
    with pytest.raises(UserError, match=r"columns= is for source=local, and source=vlguard has its own columns"):
        read_source(Part(source="vlguard", path=str(tmp_path), columns={"prompt": "q"}))


def test_align_calibrate_reads_the_columns_that_it_is_given(tmp_path, capsys):
    write_jsonl(tmp_path / "rows.jsonl", THEIRS | {"label": "correct"})
    judge = ["judge=vlsbench", "judge.base_url=http://127.0.0.1:9/v1", "judge.model=m", "judge.retries=0"]
    given = [f"path={tmp_path / 'rows.jsonl'}", *judge, f"output_dir={tmp_path}"]
    assert main(["calibrate", *given]) == 2
    assert "Proposed: columns.prompt=question" in capsys.readouterr().err
    assert main(["calibrate", *given, *MAPPED]) == 2
    assert "columns" not in capsys.readouterr().err


def test_a_construction_from_images_reads_the_columns_that_it_is_given(tmp_path):
    from align.construction.start import _image_rows
    from align.settings import ConstructConfig

    write_json(tmp_path / "images.json", [{"file": "a.png", "source_url": "somewhere"}])
    config = ConstructConfig(
        images=Part(path=str(tmp_path / "images.json"), columns={"image": "file", "origin": "source_url"})
    )
    (row,) = _image_rows(config)
    assert (row.images[0].path, row.columns["origin"]) == (str(tmp_path / "a.png"), "somewhere")
    assert json.loads((tmp_path / "images.json").read_text())
