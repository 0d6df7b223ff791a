"""Rows under the chat templates as published (trl ships them): the response and its end are supervised, nothing else.

trl's own version of a template for training marks the tokens of the model's turns.
"""

import copy
import os
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from align.batches.rendering import Renderer
from align.families import family_of
from align.fast.renderer import renderer_of
from align.models.processors import image_only
from align.rows import Row
from align.settings import ModelSettings
from tests.models.test_known_families import image
from tests.support import tiny_families

TEMPLATES = files("trl") / "chat_templates"
NAMES = ("qwen2_5_vl", "qwen3_vl", "llava_next", "smolvlm", "idefics3", "gemma3")
SPACE_FIRST = ("llava_next", "smolvlm", "idefics3")
"""A response begins with a space there, which is no token of a tiny tokenizer, so transformers marks nothing."""
MESSAGES = [
    {"role": "user", "content": [{"type": "text", "text": "what is this"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "a knife"}]},
]


def published(name, kind=""):
    return (TEMPLATES / f"{name}{kind}.jinja").read_text(encoding="utf-8")


@cache
def _built(name):
    return tiny_families.build(name)[1]


def tiny(name):
    """A processor of a tiny family, which a test may change."""
    return copy.copy(_built(name))


def marked_by_trl(processor, name):
    """(Ids of a conversation, those of them that trl trains on) by trl's template for training."""
    inputs = processor.tokenizer.apply_chat_template(
        MESSAGES,
        chat_template=published(name, "_training"),
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    marks = zip(inputs["input_ids"], inputs["assistant_masks"], strict=True)
    return list(inputs["input_ids"]), [token for token, mark in marks if mark]


@pytest.mark.parametrize("name", NAMES)
def test_the_supervised_tokens_are_those_that_trl_marks(name):
    processor = tiny(name)
    processor.chat_template = published(name)
    rendered = Renderer(processor, family_of(name)).render(Row("r", "what is this"), "a knife")
    ids, supervised = marked_by_trl(processor, name)
    whole = rendered.prompt_ids + rendered.answer_ids
    if name == "llava_next":  # its template leaves the beginning of the sequence to the tokenizer
        assert whole.pop(0) == processor.tokenizer.bos_token_id
    assert whole == ids[: len(whole)]  # after the end of a turn, templates may write white space
    if name not in SPACE_FIRST:
        assert rendered.answer_ids == supervised


@pytest.mark.parametrize("name", NAMES)
def test_images_stand_in_the_prompt_and_not_in_the_response(name):
    processor = tiny(name)
    processor.chat_template = published(name)
    renderer = Renderer(processor, family_of(name))
    row = Row("r", "what is this", (image(40, 30, 0), image(20, 20, 1)))
    rendered = renderer.render(row, "a knife")
    assert rendered.prompt_ids.count(renderer.image_token_id) >= 2
    assert processor.tokenizer.decode(rendered.answer_ids) == f"a knife {renderer.end_of_turn}"
    assert renderer.measure(row, ["a knife"])[0] == len(rendered.prompt_ids)


@pytest.mark.skipif("ALIGN_SHARED" not in os.environ, reason="needs the reference data ($ALIGN_SHARED)")
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "qwen3_5_nothink", "qwen3_5_think"])
def test_the_same_with_the_published_vocabulary_of_qwen(name):
    tokenizer = AutoTokenizer.from_pretrained(Path(os.environ["ALIGN_SHARED"], "hub", "qwen2-vl-7b-instruct"))
    family = "qwen3_vl" if name.startswith("qwen3") else name
    parts = tiny(family)
    processor = image_only(type(parts).__mro__[1])(
        parts.image_processor, tokenizer, None, chat_template=published(name)
    )
    rendered = Renderer(processor, family_of(family)).render(Row("r", "what is this"), "a knife")
    ids, supervised = marked_by_trl(processor, name)
    if name == "qwen3_5_think":  # its prompt opens a thought, which is closed as in generation, and supervised
        assert tokenizer.decode(rendered.prompt_ids).endswith("<|im_start|>assistant\n<think>\n")
        assert tokenizer.decode(rendered.answer_ids) == "\n</think>\n\na knife<|im_end|>"
        return
    whole = rendered.prompt_ids + rendered.answer_ids
    assert whole == ids[: len(whole)]
    assert tokenizer.decode(rendered.answer_ids) == "a knife<|im_end|>"
    assert tokenizer.decode(supervised).rstrip("\n").endswith("a knife<|im_end|>")


@pytest.mark.parametrize("fast", [False, True])
def test_a_switch_of_a_template_is_a_setting_of_the_model(fast):
    """Qwen3.5's template: without thoughts, its prompt has an empty one."""
    processor = tiny("qwen3_vl")
    processor.chat_template = published("qwen3_5_think")
    prompts = {}
    for thinks in (None, True, False):
        settings = ModelSettings(template={} if thinks is None else {"enable_thinking": thinks})
        make = renderer_of if fast else Renderer
        it = make(processor, family_of("qwen3_vl"), settings)
        prompts[thinks] = it.prompt_text(Row("r", "what is this"))
    assert prompts[None] == prompts[True]
    assert prompts[True].endswith("assistant\n<think>\n")
    assert prompts[False].endswith("assistant\n<think>\n\n</think>\n\n")


def test_templates_with_other_values_are_other_renderers():
    processor = tiny("qwen3_vl")
    plain, other = ({}, {"enable_thinking": False})
    identities = {
        Renderer(processor, family_of("qwen3_vl"), ModelSettings(template=of)).identity for of in (plain, other)
    }
    assert len(identities) == 2
