"""Conversations of several turns: images where the text has them, and which tokens are supervised."""

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from align.batches.collators import Collator, PreferenceCollator
from align.batches.earlier_responses import spread
from align.batches.padding import IGNORED
from align.batches.rendering import Renderer
from align.data.views import show
from align.errors import BadRow
from align.families import FAMILIES, family_of
from align.models.processors import image_only
from align.rows import Row, Turn
from tests.batches.test_published_templates import published, tiny
from tests.models.test_known_families import image

RED, BLUE = image(60, 40, 1), image(20, 20, 2)
HISTORY = (
    Turn("user", "what is this and this", (0, 12)),
    Turn("assistant", "a knife", trained=True),
    Turn("user", "how do i use this"),
    Turn("assistant", "sorry", trained=True),
)
TALK = Row("talk", "what is a flower", (RED, BLUE), response="red", chosen="red", rejected="sorry", history=HISTORY)


def supervised(renderer, row, trains=True):
    """The texts of the runs of supervised tokens."""
    collator = Collator(renderer)
    collator.trains_history = trains
    batch = collator.lay_out([collator.render(row)["response"]])
    labels, ids = batch["labels"][0], batch["input_ids"][0]
    assert torch.equal(ids[labels != IGNORED], labels[labels != IGNORED])
    runs, text = [], []
    for label in [*labels.tolist(), IGNORED]:
        if label == IGNORED and text:
            runs.append(renderer.processor.tokenizer.decode(text))
            text = []
        elif label != IGNORED:
            text.append(label)
    return runs


def renderer_for(name, renderer):
    if name in ("llava", "qwen2_vl"):
        return renderer(name)
    return Renderer(tiny(name), family_of(name))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_response_is_supervised_with_its_end(name, renderer):
    it = renderer_for(name, renderer)
    end = it.end_of_turn
    earlier = "" if name in ("llava", "mllama") else f" {end}"
    assert supervised(it, TALK) == [f"a knife{earlier}", f"sorry{earlier}", f"red {end}"]
    assert supervised(it, TALK, trains=False) == [f"red {end}"]
    assert it.measure(TALK, ["red"])[0] == len(it.render(TALK).prompt_ids)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("llava", "llava_next", "llava_onevision")])
def test_images_stand_where_the_text_has_them(name, renderer):
    """Templates of the LLaVA family write a turn's images before its text."""
    it = renderer_for(name, renderer)
    whole = it.processor.tokenizer.decode(it.render(TALK).prompt_ids)
    before, _, rest = whole.partition("what is this")
    between = rest.partition("and this")[0]
    assert it.image_token in before
    assert it.image_token in between
    assert it.image_token not in whole.partition("a knife")[2]


def test_other_methods_train_on_the_last_response(renderer):
    it = renderer("qwen2_vl")
    batch = PreferenceCollator(it)([TALK.to_dict() | {"index": 0}])
    lengths = [len(ids) for ids in it.measure(TALK, ["red", "sorry"])[1]]
    assert batch["completion_mask"].sum(1).tolist() == lengths


def test_a_conversation_survives_the_dataset():
    assert Row.from_dict(TALK.to_dict()) == TALK


@pytest.mark.parametrize("view", ["text", "caption", "blank", "shuffled"])
def test_views_show_the_whole_conversation(view, renderer):
    others = [Row("o", "what", (BLUE, RED), cluster="o")]
    row = show(Row(**(vars(TALK) | {"caption": "a red knife", "cluster": "t"})), view, others)
    whole = renderer("qwen2_vl").processor.tokenizer.decode(renderer("qwen2_vl").render(row).prompt_ids)
    assert ("<|image_pad|>" in whole) == (view in ("blank", "shuffled"))
    assert ("a red knife what is this and this" in whole) == (view == "caption")
    assert [turn.text for turn in row.history][2:] == ["how do i use this", "sorry"]


def test_a_template_that_changes_an_earlier_response_is_an_error_for_that_row():
    processor = tiny("qwen2_5_vl")
    processor.chat_template = published("qwen2_5_vl").replace("{{ content['text'] }}", "{{ content['text'] | trim }}")
    it = Renderer(processor, family_of("qwen2_5_vl"))
    row = Row("r", "what is this", history=(Turn("user", "how"), Turn("assistant", " a knife", trained=True)))
    for ask in (it.render_answers, it.measure):
        with pytest.raises(BadRow, match=r"row r: .*chat template"):
            ask(row, ["red"], history=True)
        assert ask(row, ["red"])  # a method that trains on the last response


@pytest.mark.skipif("ALIGN_SHARED" not in os.environ, reason="needs the reference data ($ALIGN_SHARED)")
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_labels_are_those_that_trl_marks_with_the_published_vocabulary(name):
    tokenizer = AutoTokenizer.from_pretrained(Path(os.environ["ALIGN_SHARED"], "hub", "qwen2-vl-7b-instruct"))
    parts = tiny(name)
    processor = image_only(type(parts).__mro__[1])(
        parts.image_processor, tokenizer, None, chat_template=published(name)
    )
    words = Row(**(vars(TALK.without_images()) | {"response": "It's red."}))
    collator = Collator(Renderer(processor, family_of(name)))
    collator.trains_history = True
    batch = collator.lay_out([collator.render(words)["response"]])
    messages = [{"role": turn.role, "content": [{"type": "text", "text": turn.text}]} for turn in words.history]
    messages += [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in
                 (("user", words.prompt), ("assistant", words.response))]  # fmt: skip
    marked = tokenizer.apply_chat_template(
        messages,
        chat_template=published(name, "_training"),
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    ids, length = batch["input_ids"][0].tolist(), batch["input_ids"].size(1)
    assert ids == list(marked["input_ids"])[:length]
    ours = [int(label != IGNORED) for label in batch["labels"][0].tolist()]
    line_break = tokenizer("\n").input_ids[0]
    theirs = [mark if token != line_break else 0 for token, mark in zip(ids, marked["assistant_masks"], strict=False)]
    assert ours == theirs


def test_texts_between_images_are_found_again():
    before = [1, 9, 2, 9, 9, 3]
    after = [1, 8, 7, 7, 8, 2, 8, 7, 8, 8, 7, 7, 7, 8, 3]
    found = spread([True, False, True, False, False, True], before, after, {9}, "row r")
    assert [i for i, value in enumerate(found) if value] == [0, 5, 14]
    with pytest.raises(BadRow, match="row r"):
        spread([True] * 6, before, [1, 8, 7, 8, 4, 8, 7, 8, 3], {9}, "row r")
