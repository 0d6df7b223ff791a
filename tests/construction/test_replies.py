"""Replies of roles: the JSON that was asked for is found, everything else is an error and never a value."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.construction.roles import reading
from align.construction.roles.reading import Unread

TEXTS = st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5)


@given(TEXTS)
def test_a_list_of_texts_is_read_whatever_it_says(given_texts):
    found = reading.texts(len(given_texts))(json.dumps(given_texts))
    assert found == list(dict.fromkeys(text.strip() for text in given_texts))


@given(TEXTS)
def test_a_fence_and_words_around_it_do_not_matter(given_texts):
    text = json.dumps(given_texts)
    expected = reading.texts(5)(text)
    assert reading.texts(5)(f"```json\n{text}\n```") == expected
    assert reading.texts(5)(f"Here is the list:\n{text}") == expected


@given(st.text())
def test_any_text_is_a_value_or_unread(text):
    for read in (reading.text, reading.texts(3), reading.scene(3), reading.switches("matches")):
        try:
            found = read(text)
        except Unread:
            continue
        assert found


def test_a_list_is_cut_to_what_was_asked_and_repeated_texts_count_once():
    assert reading.texts(2)('["a", "a", "b", "c"]') == ["a", "b"]


@pytest.mark.parametrize("reply", ["", "[]", "{}", "[1, 2]", '["a", ""]', '{"a": "b"}', "a, b", '["a"'])
def test_what_is_no_list_of_texts_is_unread(reply):
    with pytest.raises(Unread):
        reading.texts(3)(reply)


def test_a_scene_may_have_no_queries():
    assert reading.scene(3)('{"description": "a kettle", "queries": []}') == ("a kettle", [])


@pytest.mark.parametrize(
    "reply",
    [
        '{"description": "", "queries": ["a"]}',
        '{"queries": ["a"]}',
        '{"description": "a"}',
        '{"description": "a", "queries": [""]}',
    ],
)
def test_a_scene_without_its_parts_is_unread(reply):
    with pytest.raises(Unread):
        reading.scene(3)(reply)


@pytest.mark.parametrize("said", ['"true"', "1", "null", '"yes"'])
def test_only_true_and_false_are_switches(said):
    with pytest.raises(Unread):
        reading.switches("matches")(f'{{"matches": {said}}}')


def test_other_keys_of_a_switch_are_kept():
    assert reading.switches("matches")('{"matches": false, "prompt": "p"}') == {"matches": False, "prompt": "p"}


def test_quotes_around_a_plain_text_go():
    assert reading.text('"a kettle"') == "a kettle"
    assert reading.text("a kettle, 'small'") == "a kettle, 'small'"


@pytest.mark.parametrize("reply", ["I'm sorry, but I can't help with that.", "I cannot provide this."])
def test_a_refusal_is_recognised(reply):
    assert reading.is_refusal(reply)
