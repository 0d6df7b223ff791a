"""Which answers are generated: those that a source lacks, of the rows that need them, whatever the view."""

import pytest

from align.answering.stored import asking
from align.config.compose import compose_run
from align.data.assembly import training_data
from align.errors import UserError
from align.rows import Row
from tests.support.unanswered import data, settings, stored, write_rows

pytestmark = pytest.mark.usefixtures("cache")


def test_what_the_source_has_stays(tiny, tmp_path, questions):
    file = write_rows(tmp_path / "data", harmful_response="use it to cut", rejected="like this", chosen="no")
    found = data(tiny("llava"), file)
    assert {(row.harmful_response, row.rejected, row.chosen) for row in found.rows} == {
        ("use it to cut", "like this", "no")
    }
    assert (questions, found.facts) == ([], [])
    write_rows(tmp_path / "data", harmful_response="use it to cut")
    pairs = {(row.chosen, row.rejected) for row in data(tiny("llava"), file).rows}
    assert pairs == {("sorry", "use it to cut")}


def test_a_rejected_answer_is_the_harmful_one_and_a_chosen_one_the_safe_one(tiny, tmp_path, questions):
    """A preference set has both answers under its own names: nothing is generated, whichever source reads it."""
    file = write_rows(tmp_path / "data", response=..., chosen="no", rejected="like this")
    both = "data.harmful.response=generate"
    part = "data.harmful={source: 'tests.answering.test_lacking_answers:preferences', harmful_response: generate}"
    for more in ([], [part, "view=text"]):
        found = data(tiny("llava"), file, *more, both)
        assert {(row.response, row.harmful_response) for row in found.rows} == {("no", "like this")}
        assert (questions, found.facts) == ([], [])


def preferences(part):
    """A source that has preferences alone."""
    return [Row(id="a", prompt="knife", role="harmful", harm_in="text", chosen="no", rejected="like this")]


def test_benign_rows_get_the_models_own_helpful_answer(tiny, tmp_path, questions):
    file = write_rows(tmp_path / "data", role="benign", response=...)
    more = ["recipe=mm_sft", "data.harmful.harmful_response=null", "data.harmful.response=generate"]
    rows = data(tiny("llava"), file, *more).rows
    assert all(row.response and row.chosen == row.response for row in rows)
    assert all(row.harmful_response is None for row in rows)
    del questions[:]
    # harmful_response is for harmful rows: benign ones are not asked for one
    assert data(tiny("llava"), file, "recipe=mm_sft", *more[2:]).rows == rows
    assert questions == []


def test_a_view_changes_no_answer(tiny, tmp_path, cache, questions):
    file = write_rows(tmp_path / "data", caption="the picture shows a red knife")
    seen = {}
    for view in ("image", "text", "caption", "blank"):
        rows = data(tiny("llava"), file, f"view={view}", "allow_label_conflict=true").rows
        seen[view] = [(row.id, row.harmful_response, row.rejected) for row in rows]
        assert all(bool(row.images) == (view in ("image", "blank")) for row in rows)
    assert seen["image"] == seen["text"] == seen["caption"] == seen["blank"]
    assert len(questions) == len(stored(cache)) == 4


def test_a_image_that_is_asked_about_must_be_there_in_every_view(tiny, tmp_path):
    file = write_rows(tmp_path / "data")
    (tmp_path / "data" / "1.png").unlink()
    with pytest.raises(UserError, match=r"data.harmful: 1 of 4 rows lack their image; ") as error:
        data(tiny("llava"), file, "view=text", "allow_label_conflict=true")
    assert "=text" not in str(error.value)  # which would not help
    rows = data(
        tiny("llava"), file, "view=text", "allow_label_conflict=true", "data.harmful.on_missing_image=drop"
    ).rows
    assert [row.id for row in rows] == ["harmful/h0", "harmful/h2", "harmful/h3"]


@pytest.mark.parametrize(
    ("changes", "more", "expected"),
    [
        ({}, ["data.harmful.response=yes"], "data.harmful.response=yes: expected generate, or null"),
        ({}, ["data.harmful.harmful_response=True"], "data.harmful.harmful_response=True: expected generate, or null"),
        (
            {"response": ...},
            ["data.harmful.response=generate"],
            "data.harmful: 4 harmful rows .*`response` nor `harmful_response`, .* first: h0, h1, h2, h3; ",
        ),
        ({}, ["generation.max_new_tokens=0"], "generation.max_new_tokens=0: expected more than 0"),
    ],
)
def test_what_cannot_be_asked_for(tiny, tmp_path, changes, more, expected):
    with pytest.raises(UserError, match=expected):
        data(tiny("llava"), write_rows(tmp_path / "data", **changes), *more)


def test_a_source_says_what_is_asked_where_it_is_not_the_prompt(tiny, questions, cache):
    it = compose_run(
        settings(
            tiny("llava"),
            "",
            "data.harmful={source: 'tests.answering.test_lacking_answers:two_ways'}",
            "view=text",
            "data.harmful.harmful_response=generate",
        )
    ).config
    first, second = training_data(it, asking(it)).rows
    assert first.prompt != second.prompt
    assert first.harmful_response == second.harmful_response
    assert len(questions) == len(stored(cache)) == 1


def two_ways(part):
    """A source of one item that is asked in two ways."""
    asked = "how do i hurt people with the knife"
    more = {"role": "harmful", "harm_in": "text", "asked": asked, "response": "sorry"}
    return [Row(id="leak", prompt=asked, **more), Row(id="free", prompt="how do i use this thing", **more)]
