"""Unlearning and safe unlearning: against numbers worked out by hand, and the definitions on real models."""

import math

import pytest
import torch

from align.batches.parts import PARTS
from align.errors import UserError
from align.methods.safe_unlearning import SafeUnlearning, SafeUnlearningConfig, safe_unlearning
from align.methods.terms import count_of, counts_of
from align.methods.unlearning import Unlearning, UnlearningConfig, unlearning
from align.methods.unlearning_base import PartsTrainer
from align.rows import Row
from tests.support.adapters import trained
from tests.support.definition import distributions
from tests.support.methods import config, trainer

METHODS = (Unlearning, SafeUnlearning)
# Two harmful answers, one safe, one benign; three positions, zero where nothing is supervised.
LOG_PROBS = torch.tensor([[-1.0, -1.0, 0.0], [-4.0, 0.0, 0.0], [-1.0, -2.0, -3.0], [0.0, -0.5, 0.0]])
MASK = LOG_PROBS != 0
PART = torch.tensor([0, 0, 1, 2])
REFERENCE = torch.tensor([[-2.0, -1.0, 0.0], [-2.0, 0.0, 0.0]])

LABELS = torch.full((4, 4), -100)  # a prompt of one token, then what the mask says
LABELS[:, 1:][MASK] = 7


def test_tokens_and_answers_of_each_part_are_counted():
    assert counts_of(LABELS, PART, 3).tolist() == [[3, 3, 1], [2, 1, 1]]
    # The first token of a row is nobody's prediction; two passes of a step add up.
    first = LABELS.clone()
    first[:, 0] = 7
    assert (counts_of(first, PART, 3) == counts_of(LABELS, PART, 3)).all()
    assert (counts_of(LABELS[:2], PART[:2], 3) + counts_of(LABELS[2:], PART[2:], 3) == counts_of(LABELS, PART, 3)).all()


def value(terms):
    """The weighted sum of some terms that are the whole step."""
    counts = counts_of(LABELS, PART, 3)
    return sum(t.weight * t.values.sum().item() / count_of(counts, t, PARTS).item() for t in terms.values())


def test_unlearning_by_hand():
    terms = unlearning(LOG_PROBS, PART, torch.tensor([0.25]), config(UnlearningConfig))
    # NLL: harmful (1 + 1 + 4) / 3 = 2, safe (1 + 2 + 3) / 3 = 2, and the divergence as it is: -0.5 * 2 + 2 + 0.25
    assert value(terms) == pytest.approx(1.25)
    halved = config(UnlearningConfig, harmful_weight=-1.0, safe_weight=0.5, kl_weight=4.0)
    assert value(unlearning(LOG_PROBS, PART, torch.tensor([0.25]), halved)) == pytest.approx(-2 + 1 + 1)


@pytest.mark.parametrize(
    ("settings", "harmful"),
    [
        # m - m_ref, per token: (-2 + 3) / 2 = 0.5 and (-4 + 2) / 1 = -2; log(1 + e^0.5) = 0.974077,
        # log(1 + e^-2) = 0.126928
        ({}, (0.974077 + 0.126928) / 2),
        # summed: 1 and -2; beta 0.5: log(1 + e^0.5) and log(1 + e^-1) = 0.313262; NPO's factor 2 / beta = 4
        ({"logp": "sum", "beta": 0.5, "scale": 4.0}, 4 * (0.974077 + 0.313262) / 2),
    ],
)
def test_safe_unlearning_by_hand(settings, harmful):
    terms = safe_unlearning(LOG_PROBS, REFERENCE, MASK, PART, config(SafeUnlearningConfig, **settings))
    assert value(terms) == pytest.approx(0.5 + 0.3 * 2 + 0.3 * harmful, abs=1e-5)
    weighted = config(SafeUnlearningConfig, **settings, alpha=2.0, gamma=0.5)
    expected = 0.5 + 0.5 * 2 + 2 * harmful
    assert value(safe_unlearning(LOG_PROBS, REFERENCE, MASK, PART, weighted)) == pytest.approx(expected, abs=1e-5)


def nll(it, renderer, row, answer):
    """Minus the log-probability of each token of an answer."""
    log_p, ids = distributions(it, renderer, row, answer)
    return -log_p.gather(1, ids[:, None])[:, 0]


def mean(values):
    return torch.cat(values).mean().item()


def by_definition(method, policy, reference, renderer, rows):
    harmful, benign = ([row for row in rows if row.role == role] for role in ("harmful", "benign"))
    safe = mean([nll(policy, renderer, row, row.response) for row in harmful])
    forgotten = [nll(policy, renderer, row, row.harmful_response) for row in harmful]
    if method is SafeUnlearning:
        before = [nll(reference, renderer, row, row.harmful_response) for row in harmful]
        assert abs(forgotten[0].sum() - before[0].sum()) > 1e-2
        npo = [math.log(1 + math.exp(was.mean() - now.mean())) for was, now in zip(before, forgotten, strict=True)]
        kept = mean([nll(policy, renderer, row, row.response) for row in benign])
        return kept + 0.3 * safe + 0.3 * sum(npo) / len(npo)
    divergences = []
    for row in benign:
        p, q = (distributions(it, renderer, row, row.response)[0] for it in (reference, policy))
        divergences.append((p.exp() * (p - q)).sum(1))
    assert mean(divergences) > 1e-3
    return -0.5 * mean(forgotten) + safe + mean(divergences)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_the_definition_with_the_adapter_switched_off_as_reference(
    loaded, renderer, family_name, mini_rows, tmp_path, method
):
    """Mixed rows: with and without image, of several lengths, so that padding and packing into one batch show."""
    rows = [*mini_rows["image_harmful"][:2], *mini_rows["text_harmful"][:1], *mini_rows["image_benign"][:2]]
    rows += mini_rows["text_benign"][:1]
    it = trainer(method, loaded(family_name), renderer(family_name), rows, tmp_path)
    trained(it.model)
    it.model.eval()
    expected = by_definition(method, it.model, loaded(family_name).model.eval(), renderer(family_name), rows)
    for order in (range(6), [5, 3, 1, 0, 2, 4]):
        batch = it.data_collator([it.train_dataset[i] for i in order])
        assert it.compute_loss(it.model, batch).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow_for_qwen2_vl
@pytest.mark.parametrize("method", METHODS)
def test_padding_changes_nothing(loaded, renderer, family_name, mini_rows, tmp_path, method):
    rows, losses = mini_rows["image_harmful"][:2] + mini_rows["image_benign"][:2], []
    for multiple in (None, 64):
        more = {"pad_to_multiple_of": multiple}
        it = trainer(method, loaded(family_name), renderer(family_name), rows, tmp_path, **more)
        trained(it.model)
        it.model.eval()
        losses.append(it.compute_loss(it.model, it.data_collator(list(it.train_dataset))).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.slow_for_qwen2_vl
@pytest.mark.parametrize("method", METHODS)
def test_accumulation_changes_nothing(loaded, renderer, family_name, mini_rows, tmp_path, method):
    """Answers of different lengths, so that a mean over each forward pass would differ from one over the step."""
    rows, found = mini_rows["image_harmful"] + mini_rows["image_benign"], []
    for size in (4, 2):
        torch.manual_seed(0)
        more = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size, "learning_rate": 1e-3}
        it = trainer(method, loaded(family_name), renderer(family_name), rows, tmp_path, **more)
        it.train()
        logged = [v for e in it.state.log_history if "loss" in e for k, v in e.items() if k.startswith("loss")]
        weights = torch.cat([p.detach().flatten() for n, p in it.model.named_parameters() if "lora_B" in n])
        found.append((logged, weights))
    assert len(found[0][0]) == 8  # of each of the two steps the loss and its three terms
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-4)
    assert (found[0][1] - found[1][1]).norm() / found[0][1].norm() < 1e-3


HARMFUL = Row("h", "p", response="no", harmful_response="yes", role="harmful", harm_in="text")
BENIGN = Row("b", "p", response="yes")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([HARMFUL], "none of the 1 rows is benign: h"),
        ([BENIGN], "none of the 1 rows is harmful: b"),
        (
            [Row("h", "p", response="no", role="harmful"), BENIGN],
            "row h has no `harmful_response`, which unlearning of harmful rows needs",
        ),
        (
            [HARMFUL, Row("b", "p", response=" ")],
            "row b has no `response`, which unlearning of benign rows needs",
        ),
    ],
)
def test_rows_that_cannot_be_unlearned_are_named(rows, expected):
    def check():
        PartsTrainer.check_rows(rows)
        for row in rows:
            PartsTrainer.check_row(row)

    with pytest.raises(UserError, match=expected):
        check()


def test_a_forward_pass_without_one_of_its_parts_names_its_rows(loaded, renderer, mini_rows, tmp_path):
    it = trainer(Unlearning, loaded("llava"), renderer("llava"), mini_rows["text_harmful"][:2], tmp_path)
    with pytest.raises(UserError, match="text_harmful-train-0, text_harmful-train-1 has no benign"):
        it.data_collator(list(it.train_dataset))


def test_a_loss_that_is_no_number_names_its_rows(loaded, renderer, mini_rows, tmp_path):
    rows = mini_rows["text_harmful"][:1] + mini_rows["text_benign"][:1]
    it = trainer(Unlearning, loaded("llava"), renderer("llava"), rows, tmp_path)
    trained(it.model, scale=float("nan"))
    with pytest.raises(
        UserError, match="the loss is nan; rows of this batch: text_harmful-train-0, text_benign-train-0"
    ):
        it.compute_loss(it.model, it.data_collator(list(it.train_dataset)))
