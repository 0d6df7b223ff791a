"""SimPO: against numbers worked out by hand, trl's loss, and the definition on real models."""

import math

import pytest
import torch
from trl.experimental.cpo import CPOConfig, CPOTrainer

from align.config.compose import compose_run
from align.config.files import available
from align.methods.simpo import SimPO, SimPOConfig, simpo
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


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Margins 2 * 1 - 1 = 1 and 2 * (-1.5) - 1 = -4: log(1 + e^-1) = 0.3132617, log(1 + e^4) = 4.0181499
        ({}, (0.3132617 + 4.0181499) / 2),
        # And NLL of the three chosen tokens, (1 + 1 + 2) / 3
        ({"cpo_alpha": 0.5}, (0.3132617 + 4.0181499) / 2 + 0.5 * 4 / 3),
        # A tenth of the pairs the other way round: log(1 + e^1) = 1.3132617, log(1 + e^-4) = 0.0181499
        ({"label_smoothing": 0.1}, (0.9 * (0.3132617 + 4.0181499) + 0.1 * (1.3132617 + 0.0181499)) / 2),
    ],
)
def test_by_hand(settings, expected):
    terms = simpo(LOG_PROBS, MASK, config(SimPOConfig, beta=2.0, simpo_gamma=1.0, **settings))
    assert total(terms, answers=2, tokens=3) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_trls(smoothing):
    torch.manual_seed(0)
    log_probs = -torch.rand(12, 7) * 3 - 0.01
    mask = torch.arange(7) < torch.randint(1, 8, (12, 1))
    log_probs = log_probs * mask
    settings = {"beta": 2.5, "simpo_gamma": 1.4, "label_smoothing": smoothing}
    itself = type("Itself", (), settings | {"accelerator": CPU, "alpha": 0.0, "loss_type": "simpo"})
    losses, *_ = CPOTrainer.cpo_loss(itself, *(log_probs.sum(1) / mask.sum(1)).chunk(2))
    ours = simpo(log_probs, mask, config(SimPOConfig, **settings))
    assert ours["rank"].values.tolist() == pytest.approx(losses.tolist(), abs=1e-5)


def test_names_and_defaults_are_trls():
    for name in ("beta", "simpo_gamma", "label_smoothing"):
        assert getattr(SimPOConfig, name) == getattr(CPOConfig, name)
    assert hasattr(CPOConfig, "cpo_alpha")


def test_the_loss_is_the_definition_on_a_mixed_batch(loaded, renderer, family_name, mini_rows, tmp_path):
    rows, write = mixed(mini_rows), renderer(family_name)
    settings = {"beta": 2.0, "simpo_gamma": 0.4, "cpo_alpha": 0.5}
    it = trainer(SimPO, loaded(family_name), write, rows, tmp_path, **settings)
    trained(it.model).eval()
    losses, margins, nll, tokens = [], [], 0.0, 0
    for row in rows:
        (chosen, n), (rejected, m) = (log_probability(it.model, write, row, a) for a in (row.chosen, row.rejected))
        margins.append(2 * (chosen / n - rejected / m))
        losses.append(math.log(1 + math.exp(0.4 - margins[-1])))
        nll, tokens = nll - chosen, tokens + n
    expected = sum(losses) / len(losses) + 0.5 * nll / tokens
    batch = it.data_collator(list(it.train_dataset))
    assert it.compute_loss(it.model, batch).item() == pytest.approx(expected, abs=1e-4)
    logged = it._metrics["train"]
    assert logged["rewards/margins"] == pytest.approx([sum(margins) / len(margins)], abs=1e-4)
    assert logged["rewards/accuracies"] == [sum(margin > 0 for margin in margins) / len(margins)]


@pytest.mark.slow_for_qwen2_vl
def test_accumulation_changes_nothing(loaded, renderer, family_name, mini_rows, tmp_path):
    rows = mini_rows["image_harmful"] + mini_rows["text_benign"]
    keys = ("loss/rank", "loss/nll", "rewards/margins")
    load, write = lambda: loaded(family_name), renderer(family_name)
    same_when_accumulated(SimPO, load, write, rows, tmp_path, keys, cpo_alpha=0.5)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["train.beta=0"], "train.beta=0.0: expected more than 0"),
        (["train.simpo_gamma=-1"], "train.simpo_gamma=-1.0: expected 0 or more"),
        (["train.label_smoothing=0.5"], "train.label_smoothing=0.5: expected 0 or more, below 0.5"),
        (["train.cpo_alpha=-0.1"], "train.cpo_alpha=-0.1: expected 0 or more"),
    ],
)
def test_settings_that_cannot_be(tiny, tmp_path, more, expected):
    refuses(tiny("llava"), tmp_path, "simpo", more, expected)


@pytest.mark.parametrize("model", available("models"))
@pytest.mark.parametrize("recipe", ["t_simpo", "mm_simpo", "controlled/image_free"])
def test_recipes_have_the_constants_of_docs_methods(recipe, model):
    train = compose_run([f"recipe={recipe}", f"model={model}", "method=simpo"]).config.train
    assert (train["beta"], train["simpo_gamma"]) == (2.0, 1.0)
    assert train.get("cpo_alpha", 0.0) == (10.0 if model.startswith("mini_") else 0.0)


@pytest.mark.slow
@pytest.mark.long
def test_the_recipe_on_the_miniature(family_name, tmp_path):
    aligned(trained_on_the_miniature("mm_simpo", family_name, tmp_path))
