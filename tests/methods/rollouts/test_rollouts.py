"""Sampled responses: their tokens, their log-probabilities, their place in batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from align.batches.padding import pad
from align.methods.rollouts import rollout, scoring
from align.methods.rollouts.order import InRounds, Plan
from align.methods.rollouts.rollout import Rollout
from align.methods.rollouts.sampling import Request, Sampling, never_sampled, sample
from align.methods.rollouts.totals import add_up
from align.miniature.rows import evaluation_rows, training_rows
from align.settings import Part
from tests.support.rewarded import built, rewarded


@pytest.fixture
def trainer(tiny, family_name, tmp_path):
    """A PPO run before its first step, with its first round sampled."""
    it = built(rewarded(tiny(family_name), tmp_path / "run", "ppo", "train.top_k=40"))
    it._sample_round(0)
    return it


def plain_log_probs(trainer, one: Rollout) -> torch.Tensor:
    """Log-probabilities of a response by plain transformers, of its row alone (tokens,)."""
    [rendered] = trainer.rendered([one])
    batch = pad([rendered], 0)
    labels = batch.pop("labels")[0, 1:]
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model(**batch).logits[0, :-1].log_softmax(-1)
    kept = labels != -100
    return logits[kept].gather(1, labels[kept][:, None])[:, 0]


def test_log_probabilities_are_those_of_the_row_alone(trainer):
    for one in trainer.rounds.values():
        torch.testing.assert_close(one.log_probs, plain_log_probs(trainer, one), atol=1e-5, rtol=0)
        assert len(one.log_probs) == len(one.tokens) == len(one.values) == len(one.reference)


def test_the_first_pass_computes_the_log_probabilities_of_the_rollout(trainer):
    numbers = list(trainer.rounds)
    batch = trainer._filled(torch.tensor(numbers))
    of_rollouts = batch.pop("rollouts")
    inputs = {key: value for key, value in batch.items() if key not in ("part", "row_index", "supervised_tokens")}
    trainer.model.train()
    output = trainer.model(**inputs, use_cache=False, fused_lm_head=True, scalar="critic")
    torch.testing.assert_close(output.log_probs.detach(), of_rollouts["old"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.scalars.detach()[..., 0], of_rollouts["values"], atol=1e-5, rtol=0)


def test_a_new_policy_is_the_reference_model(trainer):
    assert all(torch.equal(one.log_probs, one.reference) for one in trainer.rounds.values())


def test_the_mask_is_that_of_the_labels_also_where_a_token_is_certain(trainer):
    # A log-probability of 0 is no padding: others take `log_probs != 0` as the mask.
    mask = torch.tensor([[False, True, True, False], [False, False, True, False]])
    values = [torch.tensor([0.0, -1.0]), torch.tensor([0.0])]
    found = scoring.per_response(scoring.placed(values, mask), mask)
    assert [one.tolist() for one in found] == [[0.0, -1.0], [0.0]]


def test_samples_do_not_depend_on_the_batch_and_differ_by_round_and_sample(loaded):
    it = loaded("llava")
    rows = [*evaluation_rows("vsil_free", 3), *training_rows(Part(subset="text_harmful", rows=2))]
    requests = [Request(i, j, row) for i, row in enumerate(rows) for j in range(3)]

    def tokens(size, number, some=requests):
        sampling = Sampling(3.0, 1.0, 0, 6, size, seed=1)
        return {(one.number, one.sample): w.tokens for one, w in sample(it.model, it.renderer, some, sampling, number)}

    found = tokens(15, 0)
    assert tokens(4, 0) == found
    assert tokens(2, 0, requests[5:9]) == {
        (one.number, one.sample): found[one.number, one.sample] for one in requests[5:9]
    }
    assert tokens(15, 1) != found
    assert len({tuple(found[0, sample]) for sample in range(3)}) == 3


def test_image_tokens_and_padding_are_never_sampled(loaded, family_name):
    it = loaded(family_name)
    banned = never_sampled(it.renderer)
    assert it.renderer.image_token_id in banned
    with torch.no_grad():  # a policy that would write nothing else
        weight = it.model.get_output_embeddings().weight
        weight.zero_()
        weight[banned] = 0.0
    rows = evaluation_rows("vsil_free", 4)
    sampling = Sampling(1.0, 1.0, 0, 30, 4, seed=0)
    written = [
        w.tokens for _, w in sample(it.model, it.renderer, [Request(i, 0, r) for i, r in enumerate(rows)], sampling, 0)
    ]
    assert written
    assert not {token for tokens in written for token in tokens} & set(banned)


def test_a_response_that_is_cut_pays_and_one_that_ends_at_once_has_one_token(trainer):
    end = trainer.data_collator.renderer.processor.tokenizer.eos_token_id
    ended = Rollout(0, 0, [end], "", True, torch.tensor([-1.0]), torch.tensor([-1.0]), torch.tensor([0.2]))
    cut = replace(ended, finished=False, sample=1)
    for one, score in ((ended, 0.0), (cut, -1.0)):
        one.rewards = {"length": 0.0}
        add_up(one, "harmful", trainer.parts.rewards, trainer.args.missing_eos_penalty)
        assert one.score == score
    trainer.credit([ended, cut])
    assert ended.advantages.tolist() == pytest.approx([-0.2])
    assert cut.advantages.tolist() == pytest.approx([-1.2])
    [rendered, _] = trainer.rendered([ended, cut])
    assert trainer.batch([ended], [rendered])["rollouts"]["returns"].sum().item() == pytest.approx(0.0)


def test_rollouts_are_read_as_they_were_saved(tmp_path):
    one = Rollout(3, 1, [5, 6], "a b", True, torch.tensor([-0.1, -0.2]), rewards={"x": None, "y": 0.1}, score=None)
    rollout.save(tmp_path / "rollouts.safetensors", [one], {"round": 4, "log_multiplier": 0.1})
    [found], facts = rollout.load(tmp_path / "rollouts.safetensors")
    assert facts == {"round": 4, "log_multiplier": 0.1}
    assert torch.equal(found.log_probs, one.log_probs)
    assert (found.tokens, found.rewards, found.score, found.finished) == ([5, 6], {"x": None, "y": 0.1}, None, True)


@pytest.mark.parametrize(
    ("rows", "batch", "plan"), [(20, 8, Plan(4, 2, 3)), (7, 4, Plan(1, 1, 1)), (3, 8, Plan(2, 1, 2))]
)
def test_every_pass_takes_all_rollouts_of_its_round(rows, batch, plan):
    order = InRounds(rows, batch, seed=1, step=lambda: 0, plan=plan)
    numbers = list(order)
    assert len(numbers) == len(order)
    size = batch * plan.batches
    passes = [sorted(numbers[i : i + size]) for i in range(0, len(numbers), size)]
    for number in range(order.rounds):
        expected = sorted(row * plan.samples + i for row in order.prompts_of(number) for i in range(plan.samples))
        assert passes[number * plan.passes : (number + 1) * plan.passes] == [expected] * plan.passes
    assert {number // plan.samples for number in numbers} == set(range(rows))
