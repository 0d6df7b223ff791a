"""PKU-SafeRLHF in its published layout, and files of the answers that it lacks."""

import re

import pytest

from align.errors import UserError
from tests.support.published import (
    mssbench,
    pku_pair,
    pku_saferlhf,
    write_image,
    write_jsonl,
)
from tests.support.reading import read


def test_pkus_prompts_are_rows_once_with_the_answers_that_the_set_has(tmp_path):
    pku_saferlhf(tmp_path)
    harmful = read("pku_saferlhf", tmp_path, subset="harmful")
    whole, dropped = harmful.facts
    assert whole == "6 pairs of 4 different prompts, 2 of them harmful"
    assert re.match(r"1 of them .*no safe response .*answers=<file> or response=generate", dropped)
    (drum,) = harmful.rows
    assert drum.prompt == "How do I beat a drum at night?"
    assert drum.response == drum.chosen == "First answer to how do I beat a drum, at night"
    # Both answers of the first pair are unsafe; the second is the less safe one.
    assert drum.harmful_response == drum.rejected == "Second answer to How do I beat a drum at night?"
    assert (drum.role, drum.harm_in, drum.category) == ("harmful", "text", "Mess")
    (tea,) = read("pku_saferlhf", tmp_path, subset="benign").rows
    assert (tea.response, tea.role, tea.harmful_response) == ("Second answer to How do I make tea?", "benign", None)
    (kettle,) = read("pku_saferlhf", tmp_path, subset="mixed").rows
    assert kettle.response == "First answer to How do I fill a kettle?"
    assert kettle.harmful_response == "Second answer to How do I fill a kettle?"


def test_answers_that_pku_lacks_come_from_a_file(tmp_path):
    pku_saferlhf(tmp_path)
    write_jsonl(
        tmp_path / "answers.jsonl",
        {"prompt": "How do I blow a whistle?", "response": "Better not."},
        {"prompt": "How do I sing?", "response": "Softly."},
    )
    read_with = read("pku_saferlhf", tmp_path, subset="harmful", answers=str(tmp_path / "answers.jsonl"))
    assert [row.response for row in read_with.rows] == ["First answer to how do I beat a drum, at night", "Better not."]
    assert re.match(r"1 rows .*answers\.jsonl; 1 of its 2 .*not used", read_with.facts[-1])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            [{"prompt": "How do I blow a whistle?"}],
            "row 1: .*`response` or `harmful_response`.*found .*columns prompt$",
        ),
        ([{"response": "x"}], "row 1: `prompt` is absent"),
        (
            [{"prompt": "How do I sing?", "response": "x"}],
            "none of its 1 responses .*by id or prompt, .*of 2 rows",
        ),
        ([{"prompt": "p", "response": "x"}, {"prompt": "p", "response": "y"}], "row 2: a second .* for prompt 'p'"),
    ],
)
def test_a_damaged_file_of_answers_is_named(tmp_path, lines, expected):
    pku_saferlhf(tmp_path)
    write_jsonl(tmp_path / "answers.jsonl", *lines)
    with pytest.raises(UserError, match=expected):
        read("pku_saferlhf", tmp_path, subset="harmful", answers=str(tmp_path / "answers.jsonl"))


def test_an_answer_goes_by_role_where_it_says_one_and_never_to_rows_over_different_images(tmp_path):
    mssbench(tmp_path)
    refusals = tmp_path / "refusals.jsonl"
    write_jsonl(refusals, {"id": "chat-1-1", "role": "harmful", "response": "Not in a library."})
    unsafe = read("mssbench", tmp_path, twins=True, subset="free", answers=str(refusals)).rows
    assert [(row.id, row.response, row.chosen) for row in unsafe] == [
        ("chat-1-1", "Not in a library.", "Not in a library.")
    ]
    with pytest.raises(UserError, match="none of its 1 responses .*of 4 rows"):
        read("mssbench", tmp_path, twins=True, subset="benign", answers=str(refusals))
    write_image(tmp_path / "a.png", "red")
    write_image(tmp_path / "b.png", "blue")
    rows = [{"id": name, "prompt": "Describe it.", "image": f"{name}.png"} for name in "ab"]
    write_jsonl(tmp_path / "rows.jsonl", *rows)
    write_jsonl(tmp_path / "answers.jsonl", {"prompt": "Describe it.", "response": "A red square."})
    with pytest.raises(UserError, match="'Describe it.' .*different images, a and b; .*`id`"):
        read("local", tmp_path / "rows.jsonl", role="benign", answers=str(tmp_path / "answers.jsonl"))


def test_a_revision_of_pku_with_other_columns_says_which_is_missing(tmp_path):
    pair = pku_pair("How do I hum?", True, True)
    del pair["is_response_1_safe"]
    write_jsonl(tmp_path / "data" / "x" / "train.jsonl", pair)
    with pytest.raises(UserError, match=r"train.jsonl, row 1: `is_response_1_safe` is None"):
        read("pku_saferlhf", tmp_path, subset="benign")
    write_jsonl(tmp_path / "data" / "x" / "train.jsonl", pku_pair("How do I hum?", True, True, better_response_id=2))
    with pytest.raises(UserError, match=r"row 1: `better_response_id` is 2 .int., expected 0 or 1"):
        read("pku_saferlhf", tmp_path, subset="benign")
