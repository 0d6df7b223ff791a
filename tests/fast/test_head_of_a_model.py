"""The output head of a model: whether it is trained decides which head computes, and both give the same."""

import copy
from unittest import mock

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.parallel.distributed import _find_tensors
from trl.trainer.utils import add_fused_lm_head

from align.batches.collators import Collator
from align.fast.supervised_head import PER_TOKEN, ScoredOutput, SupervisedHead
from tests.methods import test_dpo, test_sft
from tests.support.head_fields import FIELDS, close


@pytest.fixture
def batch(renderer, family_name, mini_rows):
    rows = [*mini_rows["image_benign"][:2], *mini_rows["text_benign"][:2]]
    given = Collator(renderer(family_name))([row.to_dict() | {"index": i} for i, row in enumerate(rows)])
    return {key: value for key, value in given.items() if key not in ("row_index", "supervised_tokens")}


def test_ddp_finds_the_tensors_of_an_output_with_a_scalar_head():
    """DDP reads a dictionary's `values()`: no field may have that name."""
    output = ScoredOutput(log_probs=torch.zeros(1), scalars=torch.ones(1))
    assert list(_find_tensors(output)) == [output.log_probs, output.scalars]


def output_of(model, batch):
    return model(**copy.deepcopy(batch), use_cache=False, fused_lm_head=True)


def lora(model, *targets, **more):
    return get_peft_model(model, LoraConfig(r=2, target_modules=list(targets), **more))


ADAPTED = {
    "language model": (lambda model: lora(model, "q_proj"), False),
    "everything": (lambda model: model, True),
    "head": (lambda model: lora(model, "q_proj", "lm_head"), True),
    "a copy of the head": (lambda model: lora(model, "q_proj", modules_to_save=["lm_head"]), True),
}


@pytest.mark.parametrize("adapted", ADAPTED)
def test_whether_the_head_of_a_model_is_trained_decides(loaded, family_name, batch, adapted):
    model = loaded(family_name).model
    add_fused_lm_head(model, outputs=("log_probs", *FIELDS))
    adapt, trained = ADAPTED[adapted]
    whole = adapt(model)
    head = SupervisedHead(model)
    assert head.trained == trained
    output = output_of(whole, batch)
    assert head.passes[-1].logits_again == trained
    output.log_probs.sum().backward()
    gradients = [p.grad for p in head.projection.parameters() if p.requires_grad and "lora" not in adapted]
    assert adapted == "head" or all(gradient.abs().max() > 0 for gradient in gradients)


def test_a_model_gives_the_same_fields_and_gradients_with_either_head(loaded, family_name, batch):
    model = loaded(family_name).model
    add_fused_lm_head(model, outputs=("log_probs", *FIELDS))
    torch.manual_seed(0)
    whole = lora(model, "q_proj", "v_proj", init_lora_weights=False)
    head = SupervisedHead(model)
    made = []
    for trained in (False, True):
        whole.zero_grad()
        with mock.patch.object(SupervisedHead, "trained", trained):
            output = output_of(whole, batch)
        (output.log_probs.sum() + output.entropy.sum()).backward()
        made.append((output, [p.grad for p in whole.parameters() if p.requires_grad]))
    assert [one.logits_again for one in head.passes] == [False, True]
    (output, gradients), (other, others) = made
    assert not output.label_mask.all()
    for name in PER_TOKEN:
        close(getattr(output, name), getattr(other, name), atol=1e-5)
        assert (getattr(output, name)[~output.label_mask] == 0).all()
    for one, another in zip(gradients, others, strict=True):
        assert (one - another).norm() <= 1e-5 * another.norm() + 1e-7


def test_a_batch_without_supervised_tokens_gives_zeros_that_have_a_gradient(loaded, family_name, batch):
    model = loaded(family_name).model
    add_fused_lm_head(model, outputs=("log_probs", *FIELDS))
    whole, batch = lora(model, "q_proj"), batch | {"labels": torch.full_like(batch["labels"], -100)}
    SupervisedHead(model)
    output = output_of(whole, batch)
    assert (output.log_probs == 0).all()
    output.log_probs.sum().backward()
    assert all((p.grad == 0).all() for p in whole.parameters() if p.grad is not None)


@pytest.mark.parametrize("trained", [False, True])
def test_a_copy_of_the_model_is_computed_as_the_policy_is(loaded, family_name, batch, trained):
    model = loaded(family_name).model
    reference = copy.deepcopy(model).requires_grad_(False)
    model.get_output_embeddings().requires_grad_(trained)
    for one in (model, reference):
        add_fused_lm_head(one)
    policy = SupervisedHead(model)
    head = SupervisedHead(reference, policy=policy)
    log_probs = output_of(model, batch).log_probs
    with torch.no_grad():
        of_reference = output_of(reference, batch).log_probs
    assert [one.passes[-1].logits_again for one in (policy, head)] == [trained, trained]
    assert torch.equal(log_probs, of_reference)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_training_takes_the_same_steps_with_either_head(loaded, renderer, family_name, mini_rows, tmp_path, method):
    losses = []
    for trained in (False, True):
        torch.manual_seed(0)
        it, folder = loaded(family_name), tmp_path / str(trained)
        rows, steps = mini_rows["image_harmful"], {"max_steps": 6, "learning_rate": 1e-3}
        if method == "sft":
            it.model = get_peft_model(it.model, test_dpo.adapter(it))
            trainer = test_sft.ours(it, renderer(family_name), rows, folder, **steps)
        else:
            trainer = test_dpo.trainer(it, renderer(family_name), rows, folder, **steps)
        with mock.patch.object(SupervisedHead, "trained", trained):
            trainer.train()
        assert {one.logits_again for one in trainer.head.passes} == {trained}
        losses.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
