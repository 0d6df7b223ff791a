"""Damaged data sets: an error that names the file and the row, or a drop that is counted, and never
silence.

What damage there is stands in tests/support/damages.py, how it is done in
tests/support/broken_set.py, what is asked of it in tests/support/damage.py. 200 cases by default,
always the same ones; 10,000 others by `pytest -n 0 -s -m slow tests/data/test_damage.py`, which
prints how many ended in which way.
"""

import math

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align.data.assembly import read_source
from align.data.files.archive import within
from align.data.images import drop_missing, load_image
from align.data.reading import UniqueIds
from align.errors import UserError
from align.rows import ImageRef, Row
from align.settings import Part
from tests.support.damage import check, explore, table
from tests.support.damages import DAMAGES, Case
from tests.support.odd_images import images, png
from tests.support.published import mssbench, pku_pair, pku_saferlhf, write_jsonl
from tests.support.small_sets import FORMS, LAYOUTS, forms_of

FAST, MANY = 200, 10_000


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


@pytest.fixture(autouse=True, scope="module")
def no_bars():
    """`datasets` has a bar for each parquet file that it reads."""
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_set_is_the_same_in_every_form(tmp_path, layout):
    for form in forms_of(LAYOUTS[layout]):
        folder = tmp_path / form
        folder.mkdir()
        assert check(Case(layout, form, ()), folder) == "unchanged"


@pytest.mark.parametrize("kind", DAMAGES)
def test_no_damage_passes_in_silence(kind):
    assert explore(kind, math.ceil(FAST / len(DAMAGES)), same=True).total() > 0


@pytest.mark.slow
@pytest.mark.long
def test_no_damage_of_ten_thousand_passes_in_silence():
    found = {kind: explore(kind, math.ceil(MANY / len(DAMAGES)), same=False) for kind in DAMAGES}
    print("", table(found), sep="\n")
    assert set().union(*found.values()) == {"named error", "counted drop", "unchanged", "honestly other"}


# What was found, each with its cause


@pytest.mark.parametrize(
    ("layout", "form", "damage", "ended"),
    [
        # A key that stands twice in an object: json itself takes the last.
        ("local jsonl", "folder", ("record", 0, ("key twice", 0)), "named error"),
        # The 32 bits of a TIFF were taken for 16, and all was white.
        ("spa_vl json", "zip", ("image", 1, "32-bit TIFF"), "named error"),
        # A PNG's check sums are not looked at when it is decoded.
        ("vlguard twins", "zip", ("image bytes", 1, ("insert", 353, b"2")), "named error"),
        # Names that the file system refuses, or that are no text.
        ("conversations", "images tarred", ("path", 1, "5,000 characters"), "named error"),
        ("conversations", "folder", ("path", 1, "deep"), "named error"),
        ("local json", "folder", ("path", 0, "surrogate"), "named error"),
        # An empty file beside others that have rows.
        ("pku benign", "folder", ("whole", 0, "empty"), "named error"),
        # An archive whose one folder is the set's own `data`.
        ("pku benign", "zip", ("whole", 0, "windows lines"), "unchanged"),
        # Of two members with one name the last was read, or the same rows twice.
        ("local jsonl", "zip", ("archive", 0, ("member twice", 0)), "named error"),
        ("vlguard", "images zipped", ("archive", 0, ("member twice", 0)), "named error"),
        ("vlguard", "images tarred", ("archive", 0, ("member twice", 2)), "named error"),
        # Links out of the folder that are no images.
        ("vlguard", "images zipped", ("file", 0, "archive linked out"), "named error"),
        ("vlguard", "folder", ("file", 0, "index linked out"), "named error"),
        ("spa_vl parquet", "folder", ("file", 0, "index linked out"), "named error"),
        # Benchmark rows of one id: what is absent was counted by id.
        ("vlsbench", "folder", ("record", 0, ("repeat", 0)), "named error"),
    ],
)
def test_damage_that_passed_once(tmp_path, layout, form, damage, ended):
    assert check(Case(layout, form, (damage,)), tmp_path) == ended


@pytest.mark.parametrize("kind", images())
def test_a_image_is_what_it_stands_for_or_refused(tmp_path, kind):
    for form in FORMS:
        folder = tmp_path / form
        folder.mkdir()
        expected = "named error" if images()[kind][1] is None else "honestly other"
        assert check(Case("mssbench", form, (("image", 0, kind),)), folder) == expected
    assert check(Case("spa_vl parquet", "folder", (("image", 0, kind),)), tmp_path) == expected


@pytest.mark.parametrize("kind", images())
def test_a_image_that_is_cut_short_is_refused_or_whole(kind):
    """Wherever it ends: an animation that lost its later frames is no still image."""
    whole, shown = images()[kind]
    for end in range(len(whole)):
        try:
            pixels = np.asarray(load_image(ImageRef(bytes=whole[:end]), "row x"))
        except UserError:
            continue
        assert shown is not None, f"the first {end} bytes are taken for an image"
        assert np.array_equal(pixels, shown), f"the first {end} bytes are another image"


def read_local(folder, name, content, **more):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_source(Part(source="local", path=str(folder / name), role="benign", **more)).rows


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "rows.csv",
            "prompt,response,caption\np,r,c\nq,s\n",
            "rows.csv: ... row 1: ... 2 fields ... 3 ",
        ),
        ("rows.csv", "prompt,response,prompt\np,r,q\n", "rows.csv: ... row 0: the column 'prompt' ... twice"),
        ("rows.csv", 'prompt,response\n"p,r\nq,s\n', "rows.csv: ... row 0: unexpected end of data"),
        (
            "rows.json",
            '{"a": {"prompt": "p"}, "a": {"prompt": "q"}}',
            "the key 'a' (str) ... twice in one object; ",
        ),
        ("rows.jsonl", '{"prompt": ' + "[" * 900 + "]" * 900 + "}", "row 1: `prompt` is [[[[[[[...]]]]]]] (list)"),
        ("rows.jsonl", '{"prompt": ' + "[" * 90_000, "rows.jsonl: ... row 0: maximum recursion"),
        ("rows.jsonl", '{"prompt": "p", "role": "' + "very " * 200_000 + '"}', "row 1: role is 'very very"),
        ("rows.jsonl", '{"prompt": "p", "images": 0}', "row 1: `images` is 0 (int), expected a path"),
        (
            "rows.jsonl",
            '{"prompt": "p", "images": ["a.png"], "image": "b.png"}',
            "row 1: both `image` and `images` ",
        ),
        ("rows.jsonl", '{"prompt": "p", "image": "\\ud800.png"}', "row 1: `image` is not valid Unicode"),
    ],
)
def test_what_a_file_says_wrongly_is_named(tmp_path, name, content, expected):
    with pytest.raises(UserError) as error:
        read_local(tmp_path, name, content)
    assert all(fact in str(error.value) for fact in expected.split(" ... "))
    assert name in str(error.value)
    assert len(str(error.value)) < 1000


def test_what_pku_says_of_harms_is_read_and_not_guessed(tmp_path):
    for harms in ({"Noise": "no"}, ["Noise"], "Noise"):
        pair = pku_pair("How do I beat a drum?", False, True, response_0_harm_category=harms)
        write_jsonl(tmp_path / "train.jsonl", pair)
        with pytest.raises(
            UserError, match=r"train.jsonl, row 1: `response_0_harm_category` is .*, expected an object"
        ):
            read_source(Part(source="pku_saferlhf", path=str(tmp_path), subset="mixed"))
    write_jsonl(tmp_path / "train.jsonl", pku_pair("How do I beat a drum?", False, True, better_response_id=1.0))
    with pytest.raises(UserError, match=r"row 1: `better_response_id` is 1.0 .float., expected 0 or 1"):
        read_source(Part(source="pku_saferlhf", path=str(tmp_path), subset="mixed"))


def test_half_a_character_in_a_list_of_queries_is_named(tmp_path):
    mssbench(tmp_path)
    combined = (tmp_path / "combined.json").read_text()
    (tmp_path / "combined.json").write_text(combined.replace("How do I play", "\\ud800 How do I play"))
    with pytest.raises(UserError, match="combined.json, row 1: `queries` is not valid Unicode"):
        read_source(Part(source="mssbench", path=str(tmp_path), twins=True, subset="free"))


def test_ids_that_are_made_different_are_nobodys_elses():
    unique = UniqueIds()
    assert [unique(name) for name in ("a", "a", "a-2", "a", "a-2")] == ["a", "a-2", "a-2-2", "a-3", "a-2-3"]


def test_of_two_rows_with_one_id_only_the_one_without_its_image_is_dropped(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    there, absent = (Row("same", "p", (ImageRef(path=str(tmp_path / name)),)) for name in ("a.png", "b.png"))
    for rows in ([there, absent], [absent, there]):
        kept, fact = drop_missing(rows, "drop", "x")
        assert kept == [there]
        assert "1 of 2 rows lack their image; 1 files absent" in fact


def test_a_image_cell_that_holds_no_bytes_is_no_image(tmp_path):
    cells = [{"prompt": "p", "image": {"bytes": 10**12, "path": None}}]  # bytes(10**12) would be as many zeros
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "rows.parquet")
    (row,) = read_source(Part(source="local", path=str(tmp_path), role="benign")).rows
    with pytest.raises(UserError, match=r"row x: image .*rows.parquet::0/image cannot be read: .* `bytes` .*\bint\b"):
        load_image(row.images[0], "row x")


def test_a_link_that_leads_nowhere_stands_for_rows_that_are_absent(tmp_path):
    pku_saferlhf(tmp_path)
    file = tmp_path / "data" / "Alpaca2-7B" / "train.jsonl"
    file.unlink()
    file.symlink_to(file.parent / "never-fetched.jsonl")
    with pytest.raises(UserError, match=r"Alpaca2-7B/train.jsonl: .*row 0: .*No such file"):
        read_source(Part(source="pku_saferlhf", path=str(tmp_path), subset="benign"))


def test_a_member_is_not_looked_for_outside_its_archive():
    assert within("", "a/../b.png") == "b.png"
    assert within("set/", "imgs\\a.png") == "set/imgs/a.png"
    for name in ("/b.png", "\\b.png", "../b.png", "..\\b.png", "a/../../b.png"):
        assert within("", name) is None
        assert within("set/", name) is None
