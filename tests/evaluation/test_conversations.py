"""Safety sets of several turns: continued as the file has them, or turn by turn with the model's own responses."""

import json

import pytest

from align.commands.evaluate import run_evaluation
from align.config.compose import compose_eval
from align.errors import UserError
from align.evaluation.benchmarks.conversations import CONVERSATIONS
from align.evaluation.turns import continued, waves
from align.models.loading import load
from align.rows import Row, Turn
from align.settings import BenchmarkSettings, ModelSettings
from tests.support.chat_server import answer_to, chat_server
from tests.support.published import write_image, write_json

TALKS = [
    ("a", ["what is this <image>", "how do i use this"], ["a knife"]),
    ("b", ["what is a flower", "and this <image>", "what is it"], ["a plant", "a cup"]),
]


@pytest.fixture
def file(tmp_path):
    """Two conversations, of two and of three requests, with an image each."""
    records = []
    for name, requests, responses in TALKS:
        write_image(tmp_path / f"{name}.png", "red")
        turns = [{"role": "user", "content": requests[0]}]
        for response, request in zip(responses, requests[1:], strict=True):
            turns += [{"role": "assistant", "content": response}, {"role": "user", "content": request}]
        records.append({"id": name, "messages": turns, "image": f"{name}.png", "category": "tools"})
    return write_json(tmp_path / "talks.json", records) or tmp_path / "talks.json"


def evaluated(file, folder, *more):
    words = [f"output_dir={folder}", "benchmark=conversations", f"path={file}", "generation.max_new_tokens=3", *more]
    run_evaluation(compose_eval(words).config)
    lines = (folder / "evaluation" / "conversations" / "responses.jsonl").read_text().splitlines()
    return {line["id"]: line["response"] for line in map(json.loads, lines)}


def test_every_request_follows_the_models_own_responses(file, tmp_path, tiny):
    small = [f"model={tiny('qwen2_vl')}", "model.dtype=float32", "turns=each", "judge=none"]
    found = evaluated(file, tmp_path / "out", *small)
    assert list(found) == ["a-turn1", "a-turn2", "b-turn1", "b-turn2", "b-turn3"]
    rows = {row.id: row for row in CONVERSATIONS.every(BenchmarkSettings(path=str(file), turns="each")).rows}
    it = load(ModelSettings(path=str(tiny("qwen2_vl")), dtype="float32"))
    last = continued(continued(rows["b-turn2"], rows, found), rows, found)
    assert last.history == (Turn("user", "what is a flower"), Turn("assistant", found["b-turn1"]))
    third = continued(rows["b-turn3"], {"b-turn2": last}, found)
    assert [turn.text for turn in third.history[2:]] == ["and this", found["b-turn2"]]
    ids = it.renderer.render(third).prompt_ids
    batch = it.processor.tokenizer.decode(ids)
    assert batch.count("<|im_start|> user") == 3
    assert batch.index("<|image_pad|>") > batch.index("and this")
    # Again: nothing is asked. Without the second turn's line, the third is asked again if that response changes.
    file_of = tmp_path / "out" / "evaluation" / "conversations" / "responses.jsonl"
    before = file_of.read_text()
    lines = [json.loads(line) for line in before.splitlines()]
    lines[3]["response"] = "another"
    file_of.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert evaluated(file, tmp_path / "out", *small)["b-turn2"] == "another"
    file_of.write_text("".join(line + "\n" for line in before.splitlines()[:3]))
    assert evaluated(file, tmp_path / "out", *small) == found


def test_the_endpoint_and_the_judge_see_the_whole_conversation(file, tmp_path):
    with chat_server() as model, chat_server() as judge:
        words = [f"generation.base_url={model.url}", "generation.model=big", "turns=each"]
        words += ["judge=vlsbench", f"judge.base_url={judge.url}", "judge.model=j"]
        found = evaluated(file, tmp_path / "out", *words)
    (asked,) = [one.body["messages"] for one in model.asked if len(one.body["messages"]) == 5]
    assert [message["role"] for message in asked] == ["user", "assistant", "user", "assistant", "user"]
    assert asked[1]["content"] == found["b-turn1"] == answer_to("what is a flower")
    assert [part["type"] for part in asked[2]["content"]] == ["text", "image_url"]
    assert any(f"Assistant: {found['b-turn1']}\nUser: and this" in one.prompt for one in judge.asked)


def test_the_files_own_responses_come_before_the_last_request(file, tmp_path):
    with chat_server() as model:
        words = [f"generation.base_url={model.url}", "generation.model=big", "judge=none"]
        assert list(evaluated(file, tmp_path / "out", *words)) == ["a", "b"]
    messages = max((one.body["messages"] for one in model.asked), key=len)
    assert [message["content"] for message in messages if message["role"] == "assistant"] == ["a plant", "a cup"]


def test_a_turn_after_one_without_a_response_is_not_asked(file, tmp_path):
    with chat_server(faults={"what is a flower": ["content_filter"] * 9}) as model:
        words = [f"generation.base_url={model.url}", "generation.model=big", "judge=none", "turns=each"]
        found = evaluated(file, tmp_path / "out", *words)
    assert [found[f"b-turn{number}"] for number in (1, 2, 3)] == ["", "", ""]
    lines = (tmp_path / "out/evaluation/conversations/responses.jsonl").read_text().splitlines()
    reasons = {line["id"]: line["finish_reason"] for line in map(json.loads, lines)}
    assert reasons["b-turn2"] == reasons["b-turn3"] == "unusable"
    assert found["a-turn2"]


def test_a_sample_has_whole_conversations(file, tmp_path):
    with chat_server() as model:
        words = [f"generation.base_url={model.url}", "generation.model=big", "judge=none", "turns=each", "limit=3"]
        found = evaluated(file, tmp_path / "out", *words)
    assert {name.partition("-")[0] for name in found} in ({"a"}, {"b"})


def test_a_row_that_follows_an_absent_row_is_named():
    with pytest.raises(UserError, match="row b follows row a"):
        waves([Row("b", "what", follows="a")])
    assert [[row.id for row in wave] for wave in waves([Row("a", "x"), Row("c", "x"), Row("b", "x", follows="a")])] == [
        ["a", "c"],
        ["b"],
    ]
