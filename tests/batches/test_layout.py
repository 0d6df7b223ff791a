"""Layouts: whatever the rows are, what a model computes elsewhere is what it computes of the padded
rows, and gradients too.
"""

from functools import cache

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from trl.trainer.utils import add_fused_lm_head

from align.batches.collators import Collator
from align.batches.layout import Group, cost, lay_out
from align.batches.rendered import Rendered
from align.fast.supervised_head import SupervisedHead
from align.miniature.rows import training_rows
from align.rows import Row
from align.settings import Part

WORDS = ("what", "is", "this", "a", "knife", "flower", "sorry", "red", "how", "do", "i", "use")
FIELDS = ("log_probs", "entropy")


@pytest.fixture(scope="module")
def model(loaded, family_name):
    it = loaded(family_name)
    add_fused_lm_head(it.model, outputs=FIELDS)
    it.head = SupervisedHead(it.model)
    return it


@cache
def pool():
    """Three images."""
    return tuple(row.images[0] for row in training_rows(Part(subset="image_harmful", rows=3)))


texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
prompts = st.tuples(st.one_of(st.just(""), texts), st.lists(st.integers(0, 2), max_size=2).map(tuple))


@st.composite
def asked(draw):
    """[(prompt, its images, its answers)]: some prompts alike, some images too."""
    known = draw(st.lists(prompts, min_size=1, max_size=3))
    return [
        (*draw(st.sampled_from(known)), draw(st.lists(texts, min_size=1, max_size=3)))
        for _ in range(draw(st.integers(1, 4)))
    ]


def rendered(renderer, rows):
    found = []
    for i, (prompt, images, answers) in enumerate(rows):
        row = Row(str(i), prompt, images=tuple(pool()[number] for number in images))
        found += renderer.render_answers(row, answers)
    return found


def computed(it, collator, layout, rows):
    """(outputs, gradients, tokens that were computed)."""
    collator.layout, collator.width = layout, it.model.config.get_text_config().hidden_size
    batch = collator.lay_out(rows)
    it.model.zero_grad()
    output = it.model(**batch, use_cache=False, fused_lm_head=True)
    count, length = output.log_probs.shape
    weights = 1 + 0.1 * torch.arange(count)[:, None] + 0.01 * torch.arange(length)
    (output.log_probs * weights).sum().backward()
    gradients = {name: p.grad for name, p in it.model.named_parameters() if p.grad is not None}
    laid = batch.get("layout", {}).get("input_ids", batch["input_ids"])
    return output, gradients, laid.numel()


def same(one, other):
    """To 1e-6 relative, as fp32 can tell."""
    assert (one - other).norm() <= 1e-6 * one.norm() + 1e-6


def agree(one, other):
    (output, gradients, _), (others, other_gradients, _) = one, other
    width = output.label_mask.size(1)
    assert torch.equal(output.label_mask, others.label_mask[:, :width])
    for field in FIELDS:
        same(getattr(output, field), getattr(others, field)[:, :width])
    assert gradients.keys() == other_gradients.keys()
    whole = torch.cat([gradient.flatten() for gradient in gradients.values()])
    same(whole, torch.cat([other_gradients[name].flatten() for name in gradients]))


@settings(max_examples=15, deadline=None)
@given(rows=asked())
def test_outputs_and_gradients_are_those_of_the_padded_rows(model, renderer, family_name, rows):
    collator = Collator(renderer(family_name))
    these = rendered(collator.renderer, rows)
    as_they_are = computed(model, collator, None, these)
    for layout in ("padded", "shared_prefix", "packed", "auto"):
        note(layout)
        elsewhere = computed(model, collator, layout, these)
        agree(as_they_are, elsewhere)
    assert elsewhere[2] <= as_they_are[2]  # of `auto`


@pytest.mark.parametrize("layout", ["padded", "shared_prefix", "packed"])
def test_a_image_that_nothing_looks_at_changes_nothing_wherever_rows_are_computed(model, renderer, family_name, layout):
    collator = Collator(renderer(family_name))
    these = rendered(collator.renderer, [("what is this", (), ["a knife", "sorry"]), ("how", (), ["red"])])
    without = computed(model, collator, None, these)
    collator.filler = collator.renderer.filler()
    output, gradients, _ = computed(model, collator, layout, these)
    vision = [name for name in gradients if name not in without[1]]
    assert vision  # it ran
    assert all((gradients.pop(name) == 0).all() for name in vision)
    agree(without, (output, gradients, 0))


@pytest.mark.parametrize("layout", ["padded", "shared_prefix", "packed"])
def test_the_eager_attention_takes_the_same_layouts(loaded, renderer, family_name, layout):
    it = loaded(family_name)
    it.model.set_attn_implementation("eager")
    add_fused_lm_head(it.model, outputs=FIELDS)
    SupervisedHead(it.model)
    collator = Collator(renderer(family_name))
    these = rendered(collator.renderer, [("what is this", (0,), ["a knife", "sorry"]), ("how", (), ["red"])])
    agree(computed(it, collator, None, these), computed(it, collator, layout, these))


def row(prompt, answer, name="0"):
    return Rendered(name, list(prompt), list(answer), {}, {})


def test_a_prompt_stands_once_before_the_answers_that_see_it_and_themselves():
    rows = [row([5, 6, 7], [1, 2]), row([5, 6, 7], [3, 4, 4])]
    ids = torch.tensor([[5, 6, 7, 1, 2, 0], [5, 6, 7, 3, 4, 4]])
    labelled = torch.tensor([[0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1]]).bool()
    told = lay_out(rows, 6).tensors(ids, labelled, pad_token_id=0)
    assert told["input_ids"].tolist() == [[5, 6, 7, 1, 3, 4]]  # an answer's last token predicts nothing
    assert told["source"].tolist() == [[0, 1, 2, 3, 9, 10]]
    assert told["group"].tolist() == [[0] * 6]
    assert told["segment"].tolist() == [[0, 0, 0, 1, 2, 2]]
    assert told["predicts"].tolist() == [2, 3, 2, 4, 5]  # the prompt's last token predicts the first of both


def test_short_rows_stand_behind_one_another_in_rows_of_the_longest():
    rows = [row(range(n), [9], str(n)) for n in (3, 8, 4, 2)]
    laid = lay_out(rows, 9)
    assert [[group.prompt for group in one] for one in laid.rows] == [[8], [4, 3], [2]]
    assert laid.length == 8
    assert cost(lay_out(rows, 9, pack=False).shape, 4) > cost(laid.shape, 4)
    assert lay_out(rows, 9, multiple_of=16).length == 16


def test_without_a_prompt_nothing_predicts_the_first_token():
    ids, labelled = torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.bool)
    laid = lay_out([row([], [1, 2, 3])], 3)
    assert laid.rows == [[Group(0, 0, (), [(0, 2)])]]
    assert laid.tensors(ids, labelled, 0)["predicts"].tolist() == [0, 1]


def test_attention_makes_long_rows_dear():
    rows = [row(range(i, i + 30), [9], str(i)) for i in range(3)]
    assert cost(lay_out(rows, 31).shape, 5) == pytest.approx(3 * 30 * 2)  # 30 positions: 6 times the hidden size
    assert cost((3, 60), 5) == pytest.approx(3 * 60 * 3)
