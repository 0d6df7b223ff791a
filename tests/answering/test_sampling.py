"""Drawn answers: from the model's own distribution, and the same whatever rows are beside them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from align.answering.answer import check_sampling, how
from align.answering.generate import generate
from align.answering.local_model import LocalModel
from align.answering.sampling import processors
from align.answering.stored import asking
from align.batches.padding import pad
from align.config.fingerprint import fingerprint
from align.data.assembly import training_data
from align.errors import UserError
from align.models.loading import ModelSource
from align.settings import Generation, ModelSettings
from tests.support.divergence import tokens_of
from tests.support.mixed_rows import mixed_rows
from tests.support.unanswered import config, stored, write_rows

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
UNLIKELY = 1e-3
"""A p-value below it says that the draws are not from the distribution; they are seeded, so a test
passes always or never.
"""


def drawn(draws: int, **settings) -> np.ndarray:
    """How often each of the six tokens is drawn, by as many rows, two tokens each; the second ones are counted."""
    given = processors(Generation(do_sample=True, **settings), [f"row-{i}" for i in range(draws)], "cpu")
    tokens = torch.zeros(draws, 1, dtype=torch.long)
    first, second = (given(tokens, LOGITS.repeat(draws, 1)).argmax(-1) for _ in range(2))
    assert not torch.equal(first, second)
    return np.bincount(second.numpy(), minlength=len(LOGITS))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_they_are_probable(temperature):
    expected = 20000 * (LOGITS / temperature).softmax(0).double().numpy()
    counts = drawn(20000, temperature=temperature, seed=3)
    assert chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > UNLIKELY
    # The test can fail: it tells a temperature from one a little higher.
    other = 20000 * (LOGITS / (1.1 * temperature)).softmax(0).double().numpy()
    assert chisquare(counts, other * counts.sum() / other.sum()).pvalue < UNLIKELY


def test_top_p_keeps_the_most_probable_tokens_and_their_proportions():
    probable = LOGITS.softmax(0).double().numpy()
    assert probable[:2].sum() < 0.85 < probable[:3].sum()
    counts = drawn(20000, top_p=0.85)
    assert not counts[3:].any()
    assert chisquare(counts[:3], 20000 * probable[:3] / probable[:3].sum()).pvalue > UNLIKELY


@pytest.mark.slow_for_qwen2_vl
def test_a_models_first_tokens_are_drawn_from_its_softmax(loaded, family_name):
    it, row = loaded(family_name), mixed_rows(1)[0]
    batch = pad([it.renderer.render(row)], it.renderer.pad_token_id)
    del batch["labels"]
    with torch.no_grad():
        probable = it.model.eval()(**batch).logits[0, -1].div(0.3).softmax(0).double().numpy()
    rows = [replace(row, id=f"copy-{i}") for i in range(1500)]
    asked = Generation(max_new_tokens=1, batch_size=300, do_sample=True, temperature=0.3)
    counts = Counter(tokens[0] for tokens in tokens_of(it, rows, asked).values())
    often = [token for token in range(len(probable)) if len(rows) * probable[token] >= 5]
    rest = len(rows) - sum(counts[token] for token in often)
    expected = [len(rows) * probable[token] for token in often]
    found = chisquare(
        [*(counts[token] for token in often), rest], [*expected, len(rows) - sum(expected)], sum_check=False
    )
    assert len(often) > 10
    assert found.pvalue > UNLIKELY


@pytest.mark.slow_for_qwen2_vl
def test_an_answer_owes_nothing_to_its_batch(loaded, family_name):
    it, rows = loaded(family_name), mixed_rows(1)
    asked = Generation(max_new_tokens=8, batch_size=16, do_sample=True, temperature=0.7, top_p=0.9, seed=5)
    batched = tokens_of(it, rows, asked)
    assert tokens_of(it, rows, replace(asked, batch_size=1)) == batched
    # What is left after a kill is asked in other batches.
    some = rows[::-3]
    assert tokens_of(it, some, replace(asked, batch_size=5)) == {row.id: batched[row.id] for row in some}
    # Another row, or another seed, is another draw.
    same = [replace(rows[0], id=f"copy-{i}") for i in range(8)]
    assert len({tuple(tokens) for tokens in tokens_of(it, same, asked).values()}) == 8
    assert tokens_of(it, rows, replace(asked, seed=6)) != batched


@pytest.mark.slow_for_qwen2_vl
def test_the_lower_the_temperature_the_nearer_to_greedy(loaded, family_name):
    it, rows = loaded(family_name), mixed_rows(1)
    greedy = tokens_of(it, rows, Generation(max_new_tokens=8))

    def alike(**settings) -> int:
        sampled = tokens_of(it, rows, Generation(max_new_tokens=8, do_sample=True, **settings))
        return sum(sampled[row.id] == greedy[row.id] for row in rows)

    assert alike(temperature=1.0) < alike(temperature=0.02) < alike(temperature=1e-6) == len(rows)
    assert alike(temperature=1.0, top_p=1e-6) == len(rows)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"temperature": 0.5},
            "generation.temperature=0.5 has no effect .*greedy.* generation.do_sample=true",
        ),
        ({"top_p": 0.9}, "generation.top_p=0.9 has no effect"),
        ({"seed": 1}, "generation.seed=1 has no effect"),
        (
            {"temperature": 0.0, "do_sample": True},
            "generation.temperature=0.0: expected more than 0; .*generation.do_sample=false",
        ),
        ({"temperature": -1.0}, "generation.temperature=-1.0: expected more than 0"),
        ({"temperature": float("nan"), "do_sample": True}, "generation.temperature=nan: expected more than 0"),
        ({"temperature": float("inf"), "do_sample": True}, "generation.temperature=inf: expected more than 0"),
        ({"top_p": 0.0, "do_sample": True}, "generation.top_p=0.0: expected more than 0 and at most 1"),
        ({"top_p": 1.1, "do_sample": True}, "generation.top_p=1.1: expected more than 0 and at most 1"),
    ],
)
def test_what_cannot_be_drawn_with(tiny, settings, expected):
    with pytest.raises(UserError, match=expected):
        check_sampling(Generation(**settings))
    with pytest.raises(UserError, match=expected):
        LocalModel(ModelSource(ModelSettings(path=str(tiny("llava")))), Generation(**settings))


def test_what_answers_depend_on():
    assert how(Generation(max_new_tokens=7)) == {"do_sample": False, "max_new_tokens": 7}
    sampled = Generation(do_sample=True, temperature=0.7, batch_size=3, num_processes=2)
    assert how(sampled) == {
        "do_sample": True,
        "max_new_tokens": 128,
        "temperature": 0.7,
        "top_p": 1.0,
        "seed": 0,
    }


def test_drawn_training_answers_are_stored_apart_and_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file, sample = write_rows(tmp_path / "data"), ["generation.do_sample=true", "generation.temperature=0.8"]
    plain, drawn, again, reseeded = (
        config(tiny("llava"), file, *more) for more in ([], sample, sample, [*sample, "generation.seed=1"])
    )
    assert fingerprint(drawn) == fingerprint(again)
    assert len({fingerprint(it) for it in (plain, drawn, reseeded)}) == 3
    found = [training_data(it, asking(it)) for it in (plain, drawn, again, reseeded)]
    answers = [[row.harmful_response for row in data.rows] for data in found]
    assert answers[1] == answers[2]
    assert len({tuple(texts) for texts in answers}) == 3
    assert len(stored(tmp_path / "cache")) == 3 * 4
    assert ", greedy, at most 5 new tokens" in found[0].facts[0]
    assert ", drawn with temperature=0.8, top_p=1.0, seed=0, at most 5 new tokens" in found[1].facts[0]


def test_settings_that_change_nothing_are_refused_before_anything_is_asked(tiny, tmp_path):
    it = config(tiny("llava"), write_rows(tmp_path / "data"), "generation.temperature=0.8")
    with pytest.raises(UserError, match="generation.temperature=0.8 has no effect .*greedy"):
        asking(it)


def test_a_models_own_sampling_settings_do_not_leak_in(loaded):
    it, rows = loaded("qwen2_vl"), mixed_rows(1)[:6]
    asked = Generation(max_new_tokens=8, do_sample=True)
    plain = [answer.response for answer in generate(it.model, it.renderer, rows, asked)]
    it.model.generation_config.top_k, it.model.generation_config.temperature = 1, 0.01
    assert [answer.response for answer in generate(it.model, it.renderer, rows, asked)] == plain
