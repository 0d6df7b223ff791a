"""`generation.thinking=`: the switch of a chat template, on this machine and in the request to an endpoint."""

import json
import os
import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from align.answering.answer import how
from align.answering.endpoint import Endpoint, check_settings
from align.answering.thinking import KWARGS, switched, switches_of, thinking_of
from align.cli import main
from align.errors import UserError
from align.families import family_of
from align.fast.renderer import renderer_of
from align.models.processors import image_only
from align.rows import Row
from align.settings import Answering, Generation, ModelSettings
from tests.batches.test_published_templates import published, tiny
from tests.support.chat_server import completion
from tests.support.loopback import QuietHandler, serving

ASKS = Row("r", "what is this")
OWN = "{% if thinking %}<think>{% endif %}"
"""A template with DeepSeek V3.1's and Granite's variable."""


@cache
def of_qwen():
    return AutoTokenizer.from_pretrained(Path(os.environ["ALIGN_SHARED"], "hub", "qwen2-vl-7b-instruct"))


def prompt(template, thinking, tokenizer=None):
    """The prompt of a row under a published template, with a setting."""
    processor = tiny("qwen3_vl")
    if tokenizer is not None:
        parts = processor
        processor = image_only(type(parts).__mro__[1])(parts.image_processor, tokenizer, None)
    processor.chat_template = published(template)
    settings = ModelSettings(name="m")
    if thinking:
        settings = switched(settings, processor.chat_template, thinking_of(Generation(thinking=thinking)))
    return renderer_of(processor, family_of("qwen3_vl"), settings).prompt_text(ASKS)


@given(st.text(max_size=12) | st.integers(0, 10**9).map(lambda n: f"budget={n}"))
@example("on")
@example("True")
@example(" OFF ")
@example("budget=007")
@example("budget=-1")
@example("budget=\u0661")
def test_a_value_is_understood_in_one_way_or_rejected(text):
    setting = Generation(thinking=text)
    if not re.fullmatch(r"\s*(on|off|true|false|budget\s*=\s*[0-9]+)\s*", text, re.IGNORECASE):
        with pytest.raises(UserError, match=r"generation\.thinking="):
            thinking_of(setting)
        return
    found = thinking_of(setting)
    assert thinking_of(Generation(thinking=str(found))) == found
    assert str(found) in ("on", "off") or found.budget is not None


@pytest.mark.parametrize(
    "name", ["qwen3", "qwen3_5_think", "qwen3_5_nothink", "qwen3_8", "glm4moe", "gemma4", "nemotron_3_nano"]
)
def test_the_switch_of_a_published_template_is_found(name):
    assert switches_of(published(name)) == ["enable_thinking"]


@pytest.mark.parametrize(
    "name", ["qwen3_vl", "qwen3_instruct_2507", "deepseekv3", "gptoss", "lfm2_2_5_vl", "llava_next"]
)
def test_a_template_without_a_switch_is_an_error_that_names_the_model_and_the_budget(name):
    assert switches_of(published(name)) == []
    with pytest.raises(UserError, match=r"my-model.*enable_thinking.*generation\.thinking=budget"):
        switched(ModelSettings(name="my-model"), published(name), thinking_of(Generation(thinking="off")))


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize(
    ("name", "on", "off"),
    [
        ("qwen3", "assistant\n", "assistant\n<think>\n\n</think>\n\n"),
        ("qwen3_5_think", "assistant\n<think>\n", "assistant\n<think>\n\n</think>\n\n"),
        ("qwen3_5_nothink", "assistant\n<think>\n", "assistant\n<think>\n\n</think>\n\n"),
        ("glm4moe", "<|assistant|>", "<|assistant|>\n<think></think>"),
    ],
)
def test_the_prompt_under_a_published_template(name, on, off, real):
    tokenizer = None
    if real:
        if "ALIGN_SHARED" not in os.environ:
            pytest.skip("needs the reference data ($ALIGN_SHARED)")
        tokenizer = of_qwen()
    assert prompt(name, "on", tokenizer).endswith(on)
    assert prompt(name, "off", tokenizer).endswith(off)
    assert prompt(name, "budget=5", tokenizer) == prompt(name, "on", tokenizer)
    assert prompt(name, None, tokenizer) in (prompt(name, "on", tokenizer), prompt(name, "off", tokenizer))


def test_the_other_variable_is_a_switch_too():
    found = switched(ModelSettings(), OWN, thinking_of(Generation(thinking="on")))
    assert found.template == {"thinking": True}


def test_a_budget_needs_no_switch():
    found = switched(ModelSettings(), published("qwen3_vl"), thinking_of(Generation(thinking="budget=3")))
    assert found.template == {}


@pytest.mark.parametrize(
    ("value", "thinking", "agree"), [(False, "off", True), (False, "on", False), (False, "budget=3", False)]
)
def test_the_setting_and_a_value_of_the_template_must_agree(value, thinking, agree):
    given = ModelSettings(name="m", template={"enable_thinking": value})
    wanted = thinking_of(Generation(thinking=thinking))
    if agree:
        assert switched(given, published("qwen3"), wanted).template == given.template
        return
    with pytest.raises(UserError, match=r"generation\.thinking=.*model\.template\.enable_thinking=False"):
        switched(given, published("qwen3"), wanted)


def endpoint(**more):
    return Answering(base_url="http://localhost:1/v1", model="m", **more)


def test_a_request_carries_the_switch_unless_it_is_set_already():
    assert Endpoint(endpoint(thinking="off"))._settings.extra == {KWARGS: {"enable_thinking": False, "thinking": False}}
    own = {"top_k": 1, KWARGS: {"language": "en"}}
    assert Endpoint(endpoint(thinking="on", extra=own))._settings.extra[KWARGS] == {
        "language": "en",
        "enable_thinking": True,
        "thinking": True,
    }
    set_already = {KWARGS: {"thinking": True}}
    assert Endpoint(endpoint(thinking="on", extra=set_already))._settings.extra == set_already


@pytest.mark.parametrize(
    ("thinking", "extra", "named"),
    [
        ("on", {KWARGS: {"enable_thinking": False}}, "generation.extra.chat_template_kwargs.enable_thinking"),
        ("off", {KWARGS: None}, "generation.extra.chat_template_kwargs"),
        ("budget=64", {}, "generation.extra.thinking_token_budget=64"),
        ("perhaps", {}, "generation.thinking=perhaps"),
    ],
)
def test_what_an_endpoint_cannot_do_is_an_error_before_any_request(thinking, extra, named):
    with pytest.raises(UserError) as error:
        check_settings(endpoint(thinking=thinking, extra=extra))
    assert named in str(error.value)


def test_responses_depend_on_it_and_older_ones_do_not():
    assert "thinking" not in how(Generation())
    assert {how(Generation(thinking=one))["thinking"] for one in ("on", "true", "off", "budget=3", "budget=4")} == {
        "on",
        "off",
        "budget=3",
        "budget=4",
    }


def test_the_body_that_a_server_gets_and_a_switch_that_it_does_not_read(own_folder, capsys):
    rows = [{"id": f"r{i}", "prompt": f"about {i}", "role": "harmful", "harm_in": "text"} for i in range(2)]
    Path("items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bodies = []

    class Handler(QuietHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            said = completion("<think>\nhm\n</think>\nno.", "stop")
            self.respond(200, json.dumps(said).encode(), {"Content-Type": "application/json"})

    with serving(Handler) as url:
        asking = ["eval", f"generation.base_url={url}/v1", "generation.model=m", "benchmark=local", "path=items.jsonl"]
        asking += ["judge=refusal_match", "output_dir=run"]
        assert main([*asking, "generation.thinking=off"]) == 0
        assert main([*asking, "generation.thinking=on"]) == 2  # other responses
        assert len(bodies) == 2
        assert all(body[KWARGS] == {"enable_thinking": False, "thinking": False} for body in bodies)
    told = json.loads(Path("run/evaluation/local/settings.json").read_text())
    assert told["generation"]["thinking"] == "off"
    (fact,) = json.loads(Path("run/evaluation/local/summary.refusal_match.json").read_text())["facts"]
    assert "2 of 2" in fact
    assert "generation.thinking=off" in " ".join(capsys.readouterr().out.split())
