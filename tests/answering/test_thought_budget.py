"""Budgets of thoughts: counted token by token, for marks of one token or several, and for each row alone."""

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from align.answering.generate import hidden_thoughts, thought_budget, write
from align.answering.local_model import LocalModel
from align.answering.sampling import processors
from align.answering.thought_budget import ThoughtBudget
from align.answering.thoughts import AUTOMATIC, NOTHING_HIDDEN, Hidden, split
from align.errors import UserError
from align.models.loading import ModelSource, load
from align.rows import Row
from align.settings import Generation, ModelSettings
from tests.support.thinker import asked, thinker

OPENS = "{% if enable_thinking is not defined or enable_thinking %}<think> {% endif %}"
"""The prompt opens the thought."""
ROWS = [Row(row_id, prompt) for row_id, prompt, *_ in asked()]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A function: family -> settings of an untrained model whose template opens the thought."""

    def settings_of(family):
        folder = tmp_path_factory.mktemp(f"opens-{family}")
        return ModelSettings(name="opens", path=str(thinker(family, folder, steps=0, switch=OPENS)), dtype="float32")

    return settings_of


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A tokenizer with a token for each word, marks included."""
    return AutoTokenizer.from_pretrained(thinker("qwen2_vl", tmp_path_factory.mktemp("words"), steps=0))


@pytest.fixture(scope="module")
def real():
    """A published tokenizer, in which a mark has several tokens."""
    if "ALIGN_SHARED" not in os.environ:
        pytest.skip("needs the reference data ($ALIGN_SHARED)")
    return AutoTokenizer.from_pretrained(Path(os.environ["ALIGN_SHARED"], "hub", "qwen2-vl-7b-instruct"))


def budget_of(tokenizer, tokens, answer, hidden=NOTHING_HIDDEN):
    return ThoughtBudget(tokens, answer, AUTOMATIC, hidden, tokenizer)


def written(budget, wanted):
    """(tokens, count) if a model wants to write these, one after another, and forgets a token that is forced."""
    (count,) = budget.counted(1).rows
    tokens = []
    for token in wanted:
        forced = count.next_token()
        tokens.append(token if forced is None else forced)
        count.add(tokens[-1])
        if count.done:
            break
    return tokens, count


def encoded(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("vocabulary", ["words", "real"])
def test_after_the_budget_comes_the_closing_mark_and_then_the_answer_with_its_own_room(vocabulary, request):
    tokenizer = request.getfixturevalue(vocabulary)
    word = encoded(tokenizer, " red")
    assert len(word) == 1
    for n in (0, 1, 7):
        tokens, count = written(budget_of(tokenizer, n, 4), encoded(tokenizer, "<think>") + word * 40)
        opening, closing = (encoded(tokenizer, mark) for mark in ("<think>", "</think>"))
        assert tokens == [*opening, *word * n, *closing, *word * 4]
        assert (count.cut, count.done, count.thought, count.answer) == (True, True, n, 4)
        assert split(tokenizer.decode(tokens), AUTOMATIC).thought.split() == ["red"] * n


def test_a_mark_that_the_model_is_writing_at_the_end_of_its_budget_is_completed(real):
    opening, closing, red = (encoded(real, text) for text in ("<think>", "</think>", " red"))
    assert len(closing) > 1
    tokens, count = written(budget_of(real, 4, 9), [*opening, *red * 3, *closing, *red * 3])
    assert tokens[: len(opening) + 3 + len(closing)] == [*opening, *red * 3, *closing]
    assert count.thought == 3


def test_a_thought_that_ends_in_time_is_left_alone(words):
    tokens, count = written(budget_of(words, 5, 9), encoded(words, "<think> red cup </think> sorry i can not"))
    assert words.decode(tokens) == "<think> red cup </think> sorry i can not"
    assert (count.cut, count.thought, count.answer) == (False, 2, 4)


def test_later_thoughts_share_the_budget(words):
    tokens, count = written(
        budget_of(words, 3, 9), encoded(words, "<think> red cup </think> sorry <think>" + " red" * 9)
    )
    assert words.decode(tokens).startswith("<think> red cup </think> sorry <think> red </think> red")
    assert (count.thought, count.cut) == (3, True)


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "red", "sorry", "<", "think>", "\n"]), max_size=40),
    st.integers(0, 6),
    st.integers(1, 6),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_whatever_a_model_writes_its_thoughts_and_its_answer_have_at_most_their_tokens(words, texts, n, answer, opened):
    hidden = Hidden("<think>") if opened else NOTHING_HIDDEN
    tokens, count = written(budget_of(words, n, answer, hidden), [i for text in texts for i in encoded(words, text)])
    inside, thought, said, thoughts = opened, 0, 0, 0
    for token in words.convert_ids_to_tokens(tokens):
        if token == ("</think>" if inside else "<think>"):
            said += thoughts > 0  # marks of later thoughts
            thoughts, inside = thoughts + inside, not inside
        else:
            thought, said = thought + inside, said + (not inside)
    assert (thought, said) == (count.thought, count.answer)
    assert thought <= n
    assert said <= answer
    assert count.done == (said == answer)


@pytest.mark.parametrize("sampled", [False, True])
def test_a_thought_that_the_prompt_opens_has_exactly_its_tokens_and_no_row_depends_on_its_batch(
    opened, family_name, sampled
):
    it = load(opened(family_name))
    found = []
    for size in (1, 5):
        asking = Generation(max_new_tokens=6, batch_size=size, thinking="budget=4", do_sample=sampled)
        drawing, budget = partial(processors, asking), thought_budget(it.renderer, asking)
        by_row = write(it.model, it.renderer, ROWS, asking, drawing, budget=budget)
        found.append({one.rendered.id: one for one in by_row})
    alone, batched = found
    assert {key: one.tokens for key, one in alone.items()} == {key: one.tokens for key, one in batched.items()}
    assert hidden_thoughts(it.renderer, Generation()).opened == "<think>"
    cut = [one for one in alone.values() if one.thought_cut]
    assert cut
    closing = it.processor.tokenizer.convert_tokens_to_ids("</think>")
    for one in cut:
        assert one.tokens.index(closing) == 4
        assert one.finished or len(one.tokens) == 4 + 1 + 6


def test_a_tokenizer_without_the_closing_mark_is_an_error_before_the_weights_are_loaded(tiny, tmp_path):
    folder = tmp_path / "thinker"
    shutil.copytree(tiny("llava"), folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if add_generation_prompt %}<think>{% endif %}")
    settings = ModelSettings(name="t", path=str(folder), dtype="float32")
    with pytest.raises(UserError, match=r"budget=4.*</think>"):
        LocalModel(ModelSource(settings), Generation(thinking="budget=4"))


def test_a_budget_without_marks_is_an_error(tiny):
    settings = ModelSettings(name="t", path=str(tiny("llava")), dtype="float32")
    with pytest.raises(UserError, match=r"generation\.thought_marks=none"):
        LocalModel(ModelSource(settings), Generation(thinking="budget=4", thought_marks=["none"]))
