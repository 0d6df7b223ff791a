"""Judges and roles that vLLM serves for the time of a command: started, waited for, asked with a key, and ended."""

import json
import os
import random

import pytest

from align.answering.conversation import Reply, Request, Turn
from align.answering.vllm.served_chat import KEY, ServedChat
from align.commands.evaluate import main as evaluate
from align.construction.roles.build import build_roles
from align.construction.roles.role import Call
from align.data.images import encode_png
from align.errors import UserError
from align.evaluation.judges.build import build_all
from align.miniature.world import draw
from align.settings import Judging, Roles, VllmProcess
from tests.support.vllm_environments import command_lines


@pytest.fixture
def model(tmp_path):
    """A folder that the stand-in serves, whatever is in it."""
    folder = tmp_path / "judge"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return str(folder)


def served(model, python, **settings):
    return Judging(serve=model, vllm=VllmProcess(python=python, **settings), retries=0)


def test_an_evaluation_starts_its_judge_and_ends_it(model, python, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"id": f"r{i}", "prompt": f"question {i}", "role": "harmful"}) + "\n" for i in range(5))
    )
    arguments = [
        "model=mini_llava", "benchmark=local", f"path={tmp_path / 'rows.jsonl'}", f"output_dir={tmp_path / 'out'}",
        "judge=vlsbench", f"judge.serve={model}", f"judge.vllm.python={python()}", "generation.max_new_tokens=2",
    ]  # fmt: skip
    assert evaluate(arguments) == 0
    (verdicts,) = (tmp_path / "out" / "evaluation" / "local").glob("verdicts.vlsbench.jsonl")
    found = [json.loads(line) for line in verdicts.read_text().splitlines()]
    assert [record["verdict"] for record in found] == ["refusal"] * 5
    assert found[0]["settings"]["model"] == model
    assert found[0]["settings"]["engine"]["name"] == "vllm"
    keys = [value for name, value in os.environ.items() if name.startswith(KEY)]
    written = "".join(file.read_text() for file in (tmp_path / "out").rglob("*.json*"))
    assert keys
    assert not any(key in written for key in keys)


@pytest.mark.parametrize(("fault", "said"), [("out_of_memory", "CUDA out of memory"), ("dies:2", "status 3")])
def test_a_server_that_ends_is_an_error_with_its_log(model, python, fault, said):
    chat = ServedChat(served(model, python(fault)), "judge")
    requests = [Request(str(i), (Turn("user", f"question {i}"),), 8) for i in range(3)]
    with pytest.raises(UserError, match=said):
        list(chat.replies(requests))
    chat.release()


def test_settings_of_a_served_judge_are_checked_before_it_is_started(model, python, tmp_path):
    with pytest.raises(UserError, match="base_url and serve"):
        build_all(["vlsbench"], Judging(serve=model, base_url="http://localhost:1/v1", model="m"))
    with pytest.raises(UserError, match="absent"):
        build_all(["vlsbench"], Judging(serve=str(tmp_path / "absent")))
    with pytest.raises(UserError, match="dtype"):
        build_all(["vlsbench"], Judging(serve=model, dtype="float16", vllm=VllmProcess(python=python())))


def test_roles_with_one_served_model_share_its_server_until_none_needs_it(model, python, tmp_path):
    config = Roles(serve=model, vllm=VllmProcess(python=python()), max_new_tokens=20)
    roles = build_roles(["captioner", "answerer"], config, {}, tmp_path, [])
    image = encode_png(draw("cup", "red", "train", random.Random(0), 32))
    calls = {
        "captioner": Call("1#caption", "caption", {}, (image,)),
        "answerer": Call("1#helpful", "helpful", {"query": "what is this"}, (image,)),
    }
    for name, call in calls.items():
        (found,) = roles[name].replies([call])
        assert isinstance(found, Reply), found
        assert servers(model) == 1
    roles["captioner"].release()
    assert servers(model) == 1
    roles["answerer"].release()
    assert servers(model) == 0


def servers(model):
    """Running servers of a model."""
    lines = [line.split("\0") for line in command_lines()]
    return sum(words[1:3] == ["-m", "vllm.entrypoints.openai.api_server"] and model in words for words in lines)
