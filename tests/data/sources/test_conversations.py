"""Instruction data: conversations, and Alpaca."""

import re

import pytest

from align.errors import UserError
from tests.support.published import (
    write_image,
    write_json,
)
from tests.support.reading import counted, read


def test_a_conversation_that_begins_without_words_is_left_out_and_counted(tmp_path):
    write_image(tmp_path / "cup.png", "red")

    def talk(asked):
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": "A cup."}]
        return {"id": asked, "image": "cup.png", "conversations": turns}

    write_json(tmp_path / "x.json", [talk("<image>"), talk("<image> What?")])
    found = read("conversations", tmp_path / "x.json")
    assert [row.prompt for row in found.rows] == ["What?"]
    (fact,) = found.facts
    assert re.match("1 conversations .*first request has no words", fact)


def test_conversations_are_read_to_the_first_answer_and_the_rest_is_counted(tmp_path):
    image = {"id": "000000033471", "image": "cup.png"}
    write_json(
        tmp_path / "llava.json",
        [
            image
            | {
                "conversations": [
                    {"from": "human", "value": "<image>\nWhat colour is the cup?"},
                    {"from": "gpt", "value": "Red."},
                    {"from": "human", "value": "And the saucer?"},
                    {"from": "gpt", "value": "White."},
                ]
            },
            image
            | {
                "conversations": [
                    {"from": "human", "value": "Describe it.\n<image>"},
                    {"from": "gpt", "value": "A red cup."},
                ]
            },
            {"id": 7, "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Good day."}]},
        ],
    )
    found = read("llava_instruct", tmp_path / "llava.json")
    assert [(row.id, row.prompt, row.response, len(row.images)) for row in found.rows] == [
        ("000000033471", "What colour is the cup?", "Red.", 1),
        ("000000033471-2", "Describe it.", "A red cup.", 1),
        ("7", "Hello", "Good day.", 0),
    ]
    assert counted(found.rows) == {("benign", "none"): 3}
    (fact,) = found.facts
    assert re.match("1 of 3 conversations .*turns after the first exchange", fact)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            {"conversations": [{"from": "gpt", "value": "Hi"}]},
            "row 1: `conversations` begins with gpt; expected human, gpt",
        ),
        ({"conversations": []}, "row 1: `conversations` begins with nothing"),
        ({"conversations": "Hi"}, "row 1: `conversations` is 'Hi' .str., expected a list"),
        (
            {"conversations": [{"from": "human", "value": "<image> What?"}, {"from": "gpt", "value": "A cup."}]},
            "row 1: .*first request has 1 <image>.*`image`.* 0 images",
        ),
    ],
)
def test_a_damaged_conversation_is_named(tmp_path, record, expected):
    write_json(tmp_path / "x.json", [record])
    with pytest.raises(UserError, match=expected):
        read("sharegpt4v", tmp_path / "x.json")


def test_alpaca_joins_instruction_and_input_and_counts_rows_without_an_answer(tmp_path):
    write_json(
        tmp_path / "alpaca_data.json",
        [
            {"instruction": "Sort these.", "input": "b, a", "output": "a, b"},
            {"instruction": "Greet me.", "input": "", "output": "Good day."},
            {"instruction": "Sing.", "input": "", "output": ""},
        ],
    )
    found = read("alpaca", tmp_path / "alpaca_data.json")
    assert [(row.id, row.prompt, row.response) for row in found.rows] == [
        ("alpaca-1", "Sort these.\nb, a", "a, b"),
        ("alpaca-2", "Greet me.", "Good day."),
    ]
    (fact,) = found.facts
    assert re.match("1 rows without a response", fact)
