"""Files that survive a kill."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.errors import UserError
from align.files import append_jsonl, open_jsonl, read_json, read_jsonl, write_text


def test_a_text_is_replaced_at_once_and_leaves_nothing_beside_it(tmp_path):
    write_text(tmp_path / "a" / "f.txt", "old")
    write_text(tmp_path / "a" / "f.txt", "new")
    assert (tmp_path / "a" / "f.txt").read_text() == "new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["f.txt"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for all examples."""
    return tmp_path_factory.mktemp("jsonl")


@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=8) | st.integers()), max_size=5),
    st.integers(min_value=0),
)
def test_wherever_a_kill_cuts_the_whole_records_before_it_remain(place, records, cut):
    path = place / "f.jsonl"
    path.unlink(missing_ok=True)
    kept, file = open_jsonl(path)
    assert kept == []
    with file:
        for record in records:
            append_jsonl(file, record)
    content = path.read_bytes()
    path.write_bytes(content[: cut % (len(content) + 1)])
    whole = path.read_bytes().count(b"\n")
    kept, file = open_jsonl(path)
    with file:
        append_jsonl(file, {"more": 1})
    assert kept == records[:whole]
    assert list(read_jsonl(path)) == [*records[:whole], {"more": 1}]


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x.json: .*JSON"):
        read_json(tmp_path / "x.json")
