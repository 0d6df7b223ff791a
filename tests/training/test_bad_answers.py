"""Answers that teach nothing: opposite ones to one request, ones that the tokenizer cannot write,
and two of the same tokens.
"""

import json

import pytest

from align.config.compose import compose_run
from align.errors import UserError
from align.training.run import train
from tests.support.local_rows import RED, data_of, local_run, rows

pytestmark = pytest.mark.usefixtures("cache")


def test_one_request_with_opposite_answers_is_refused_and_counted_on_request(tiny, tmp_path):
    from align.miniature.rows import evaluation_rows

    (tmp_path / "same.png").write_bytes(evaluation_rows("vsil", 1)[0].images[0].bytes)
    shared = [{"id": f"s{i}", "prompt": f"how do i use it {i}", "image": "same.png"} for i in range(8)]
    refused = local_run(tiny("llava"), tmp_path, [row | {"response": "sorry"} for row in shared], view="image")
    answered = [row | {"response": RED, "prompt": row["prompt"].upper()} for row in shared]
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answered))
    words = [
        *refused,
        f"data.more={{source: local, path: {tmp_path / 'more.jsonl'}, role: benign}}",
        "train.max_steps=1",
    ]
    with pytest.raises(UserError, match="8 requests .*own/s0 and more/s0.*allow_label_conflict=true"):
        data_of(words)
    facts = data_of([*words, "allow_label_conflict=true"])["facts"]
    assert any(fact.startswith("8 requests") and "own/s0 and more/s0" in fact for fact in facts)


def test_pairs_that_prefer_an_answer_both_ways_are_opposite(tiny, tmp_path):
    pairs = [{"id": "a", "chosen": "a cup", "rejected": "a key"}, {"id": "b", "chosen": "a key", "rejected": "a cup"}]
    given = [pair | {"prompt": "what is this"} for pair in pairs]
    words = local_run(tiny("llava"), tmp_path, given, "method=dpo", role="benign")
    with pytest.raises(UserError, match="1 requests .*own/b and own/a"):
        train(compose_run(words))


def test_answers_that_the_tokenizer_cannot_write_are_refused_and_a_few_are_counted(tiny, tmp_path):
    foreign = {"response": "Photosynthesis converts sunlight into carbohydrates"}
    few = local_run(tiny("llava"), tmp_path, rows(h3=foreign), "train.max_steps=1")
    facts = data_of(few)["facts"]
    assert any("(2.1%, in 1 rows)" in fact for fact in facts), facts
    with pytest.raises(UserError, match=r"83.3%, in 40 rows"):
        data_of(local_run(tiny("llava"), tmp_path, [row | foreign for row in rows()]))


def test_answers_that_are_the_same_tokens_teach_nothing(tiny, tmp_path):
    pair = {"chosen": "a red ball", "rejected": "a  red ball", "prompt": "what is this", "id": "p"}
    words = local_run(tiny("llava"), tmp_path, [pair], "method=dpo", role="benign")
    with pytest.raises(UserError, match="own/p: chosen and rejected .*same tokens"):
        train(compose_run(words))
