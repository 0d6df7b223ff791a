"""ORPO: against numbers worked out by hand, trl's odds ratio, and the definition on real models."""

import math

import pytest
import torch
from trl.experimental.orpo import ORPOConfig as TrlORPOConfig
from trl.experimental.orpo import ORPOTrainer

from align.config.compose import compose_run
from align.config.files import available
from align.methods.orpo import ORPO, ORPOConfig, log_odds, orpo
from tests.support.adapters import trained
from tests.support.methods import (
    CPU,
    LOG_PROBS,
    MASK,
    aligned,
    config,
    log_probability,
    mixed,
    refuses,
    same_when_accumulated,
    total,
    trained_on_the_miniature,
    trainer,
)


def odds_loss(chosen, rejected):
    """The loss of one pair of log-probabilities, as the paper writes it."""
    odds = [math.exp(log_p) / (1 - math.exp(log_p)) for log_p in (chosen, rejected)]
    return -math.log(1 / (1 + math.exp(-math.log(odds[0] / odds[1]))))


def test_by_hand():
    # Odds of -1: 0.581977, of -2: 0.156518, of -0.5: 1.541494; ratios 3.718282 and 0.101536:
    # log(1 + 1 / 3.718282) = 0.238183 and log(1 + 1 / 0.101536) = 2.384045
    terms = orpo(LOG_PROBS, MASK, config(ORPOConfig, beta=0.5))
    assert terms["odds_ratio"].values.tolist() == pytest.approx([0.238183, 2.384045], abs=1e-5)
    by_definition = [odds_loss(-1, -2), odds_loss(-2, -0.5)]
    assert terms["odds_ratio"].values.tolist() == pytest.approx(by_definition, abs=1e-6)
    # NLL of the three chosen tokens: (1 + 1 + 2) / 3
    expected = 4 / 3 + 0.5 * sum(by_definition) / 2
    assert total(terms, answers=2, tokens=3) == pytest.approx(expected, abs=1e-6)


def test_the_odds_ratio_is_trls():
    torch.manual_seed(0)
    log_probs = -torch.rand(12, 7) * 3 - 0.01
    mask = torch.arange(7) < torch.randint(1, 8, (12, 1))
    log_probs = log_probs * mask
    chosen, rejected = (log_probs.sum(1) / mask.sum(1)).chunk(2)
    itself = type("Itself", (), {"beta": 0.3, "accelerator": CPU})
    losses, *_ = ORPOTrainer.odds_ratio_loss(itself, chosen, rejected)
    terms = orpo(log_probs, mask, config(ORPOConfig, beta=0.3))
    assert (0.3 * terms["odds_ratio"].values).tolist() == pytest.approx((-losses).tolist(), abs=1e-5)
    assert ORPOConfig.beta == TrlORPOConfig.beta


def test_an_answer_that_is_certain_has_a_finite_gradient():
    log_p = torch.tensor([0.0, -1e-9, -30.0], requires_grad=True)
    log_odds(log_p).sum().backward()
    assert torch.isfinite(log_odds(log_p)).all()
    assert torch.isfinite(log_p.grad).all()


def test_the_loss_is_the_definition_on_a_mixed_batch(loaded, renderer, family_name, mini_rows, tmp_path):
    rows, write = mixed(mini_rows), renderer(family_name)
    it = trainer(ORPO, loaded(family_name), write, rows, tmp_path, beta=0.3)
    trained(it.model).eval()
    losses, nll, tokens = [], 0.0, 0
    for row in rows:
        (chosen, n), (rejected, m) = (log_probability(it.model, write, row, a) for a in (row.chosen, row.rejected))
        losses.append(odds_loss(chosen / n, rejected / m))
        nll, tokens = nll - chosen, tokens + n
    expected = nll / tokens + 0.3 * sum(losses) / len(losses)
    batch = it.data_collator(list(it.train_dataset))
    assert it.compute_loss(it.model, batch).item() == pytest.approx(expected, abs=1e-4)
    assert it._metrics["train"]["log_odds_ratio"] == pytest.approx([-sum(losses) / len(losses)], abs=1e-4)
    assert {"rewards/margins", "rewards/accuracies", "logps/chosen", "log_odds_chosen"} <= set(it._metrics["train"])


@pytest.mark.slow_for_qwen2_vl
def test_accumulation_changes_nothing(loaded, renderer, family_name, mini_rows, tmp_path):
    rows = mini_rows["image_harmful"] + mini_rows["text_benign"]
    keys = ("loss/nll", "loss/odds_ratio", "rewards/margins")
    same_when_accumulated(ORPO, lambda: loaded(family_name), renderer(family_name), rows, tmp_path, keys)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["train.beta=0"], "train.beta=0.0: expected more than 0; .*method=sft"),
        (["train.loss_type=dft"], "train.loss_type would have no effect"),
        (["stored_reference=true"], "it has no reference model"),
    ],
)
def test_settings_that_cannot_be(tiny, tmp_path, more, expected):
    refuses(tiny("llava"), tmp_path, "orpo", more, expected)


@pytest.mark.parametrize("model", available("models"))
@pytest.mark.parametrize("recipe", ["t_orpo", "mm_orpo", "controlled/image_free"])
def test_recipes_have_the_constants_of_docs_methods(recipe, model):
    train = compose_run([f"recipe={recipe}", f"model={model}", "method=orpo"]).config.train
    assert train.get("beta", ORPOConfig.beta) == 0.1


@pytest.mark.slow
@pytest.mark.long
def test_the_recipe_on_the_miniature(family_name, tmp_path):
    aligned(trained_on_the_miniature("mm_orpo", family_name, tmp_path))
