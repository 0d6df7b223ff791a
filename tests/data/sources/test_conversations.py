"""Instruction data: conversations, and Alpaca."""

import re

import pytest

from align.errors import UserError
from align.rows import Turn
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
    assert re.match("1 conversations .*last request has no words", fact)


def test_every_exchange_of_a_conversation_is_kept(tmp_path):
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
        ("000000033471", "And the saucer?", "White.", 1),
        ("000000033471-2", "Describe it.", "A red cup.", 1),
        ("7", "Hello", "Good day.", 0),
    ]
    first, second, _ = found.rows
    assert first.history == (
        Turn("user", "What colour is the cup?", (0,)),
        Turn("assistant", "Red.", trained=True),
    )
    assert (first.places, second.places) == ((), (12,))
    assert counted(found.rows) == {("benign", "none"): 3}
    assert found.facts == ["1 of 3 conversations have several exchanges (turns=all)"]
    (last, *_) = read("llava_instruct", tmp_path / "llava.json", turns="last").rows
    assert [turn.trained for turn in last.history] == [False, False]


def test_all_2977_exchanges_of_vlguards_converter_are_trained_on(tmp_path):
    """VLGuard's converter writes 2,000 records: 1,023 with one exchange and 977 with two."""
    write_image(tmp_path / "cup.png", "red")

    def record(number):
        turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cup."}]
        more = [{"from": "human", "value": "And this?"}, {"from": "gpt", "value": "A saucer."}]
        return {"id": f"r{number}", "image": "cup.png", "conversations": turns + more * (number < 977)}

    write_json(tmp_path / "x.json", [record(number) for number in range(2000)])
    rows = read("conversations", tmp_path / "x.json").rows
    assert sum(turn.trained for row in rows for turn in row.history) + len(rows) == 2977
    assert all(len(row.images) == 1 for row in rows)


MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "<image> and <image>: which is red?"},
    {"role": "assistant", "content": "The first."},
    {"role": "user", "content": "And <image>?"},
]
HISTORY = (
    Turn("system", "Be brief."),
    Turn("user", "and : which is red?", (0, 4)),
    Turn("assistant", "The first.", trained=True),
)
PARTS = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "image"},
            {"type": "text", "text": " and "},
            {"type": "image"},
            {"type": "text", "text": ": which is red?"},
        ],
    },
    {"role": "assistant", "content": [{"type": "text", "text": "The first."}]},
    {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "image"}, {"type": "text", "text": "?"}]},
]
ANSWER = {"role": "assistant", "content": "It is blue."}
WORSE = {"role": "assistant", "content": "Red."}


@pytest.mark.parametrize(
    ("record", "answers"),
    [
        ({"messages": [*MESSAGES, ANSWER]}, ("It is blue.", None, None)),
        ({"messages": [*PARTS, ANSWER]}, ("It is blue.", None, None)),
        ({"messages": MESSAGES}, (None, None, None)),  # a prompt for PPO and GRPO
        ({"messages": [*MESSAGES[1:], ANSWER], "system": "Be brief."}, ("It is blue.", None, None)),
        ({"prompt": PARTS, "completion": [ANSWER]}, ("It is blue.", None, None)),
        ({"prompt": MESSAGES, "chosen": [ANSWER], "rejected": [WORSE]}, ("It is blue.", "It is blue.", "Red.")),
        ({"chosen": [*MESSAGES, ANSWER], "rejected": [*MESSAGES, WORSE]}, ("It is blue.", "It is blue.", "Red.")),
        (
            {"conversations": MESSAGES, "chosen": ANSWER, "rejected": {"from": "gpt", "value": "Red."}},
            ("It is blue.", "It is blue.", "Red."),
        ),
        ({"messages": [*MESSAGES, ANSWER], "rejected_response": "Red."}, ("It is blue.", "It is blue.", "Red.")),
    ],
)
def test_each_form_gives_the_same_turns_and_images_where_the_text_has_them(record, answers, tmp_path):
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"{name}.png", "red")
    write_json(tmp_path / "x.json", [record | {"images": ["a.png", "b.png", "c.png"]}])
    (row,) = read("conversations", tmp_path / "x.json").rows
    assert row.history == HISTORY
    assert (row.prompt, row.places) == ("And ?", (4,))
    assert (row.response, row.chosen, row.rejected) == answers


def test_a_first_turn_of_the_model_is_left_out_and_counted(tmp_path):
    turns = [{"from": "gpt", "value": "Hi"}, {"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cup."}]
    write_json(tmp_path / "x.json", [{"conversations": turns}])
    found = read("sharegpt4v", tmp_path / "x.json")
    assert [(row.prompt, row.response, row.history) for row in found.rows] == [("What?", "A cup.", ())]
    assert found.facts == ["1 conversations begin with a turn of the model, which is left out"]


def talk(*turns):
    return {"conversations": [{"from": role, "value": text} for role, text in turns]}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (talk(("gpt", "Hi")), "row 1: .*no request"),
        ({"conversations": []}, "row 1: .*no request"),
        ({"conversations": "Hi"}, "row 1: no list of turns in .*conversations.* found the columns conversations"),
        (talk(("human", "<image> What?"), ("gpt", "A cup.")), "row 1: .*1 places for images .*the row has 0 images"),
        (talk(("human", "a"), ("human", "b"), ("gpt", "c")), "row 1: turns 1 and 2 are both of the user"),
        (talk(("human", "a"), ("system", "b"), ("gpt", "c")), "row 1: a system turn after the beginning"),
        (talk(("human", "a"), ("function", "b"), ("gpt", "c")), "row 1, `conversations` 2: role 'function'"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "`content` 1: a part of type 'video'"),
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
