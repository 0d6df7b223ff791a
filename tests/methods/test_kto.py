"""KTO: against numbers worked out by hand, trl's own trainer, and the definition on real models."""

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from trl import KTOTrainer

from align.batches.collators import MARKS, marked
from align.config.compose import compose_run
from align.config.files import available
from align.data.twins import Twin, rows_of
from align.errors import UserError
from align.methods.kto import KTO, LOSSES, KTOConfig, answers_of_others, kto
from align.methods.terms import count_of
from align.rows import ImageRef, Row
from tests.methods.test_layouts import STEPS, same
from tests.methods.test_layouts import trained as trained_run
from tests.support.adapters import trained
from tests.support.methods import (
    CPU,
    aligned,
    config,
    log_probability,
    mixed,
    refuses,
    same_when_accumulated,
    trained_on_the_miniature,
    trainer,
)
from tests.support.trajectories import same_trajectory, train_every_method


def value(terms, part):
    """The loss of a step: a term without a part is a mean over all its answers."""
    counts = torch.tensor([[0.0, 0.0], [(part == 0).sum(), (part == 1).sum()]])
    return sum(t.weight * t.values.sum().item() / count_of(counts, t, MARKS).item() for t in terms.values())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # beta * (r - z): good 0.5 * (3 - 1) = 1 and 0.5 * (1 - 1) = 0, bad 0.5 * (1 - (-1)) = 1:
        # 1 - sigmoid(1) = 0.2689414, 1 - sigmoid(0) = 0.5
        ({}, (0.2689414 + 0.5 + 0.2689414) / 3),
        ({"desirable_weight": 2.0, "undesirable_weight": 0.5}, (2 * (0.2689414 + 0.5) + 0.5 * 0.2689414) / 3),
    ],
)
def test_by_hand(settings, expected):
    part = torch.tensor([0, 0, 1])
    terms = kto(torch.tensor([3.0, 1.0, -1.0]), part, 1.0, config(KTOConfig, beta=0.5, **settings))
    assert value(terms, part) == pytest.approx(expected, abs=1e-6)


def trls(ratios, kl_ratios, part, settings):
    """(loss, kl) of trl's own trainer, whose model is a table of log-probabilities: the reference's are 0."""

    def model(*, input_ids, **_):
        # Each answer is one token, after one of the prompt. The id of a row is its place in a table.
        log_probs = torch.cat([ratios, kl_ratios])[input_ids[:, :1]]
        return SimpleNamespace(log_probs=log_probs, entropy=log_probs, mean_logits=log_probs)

    ids = torch.arange(len(ratios) + len(kl_ratios))[:, None].expand(-1, 2)
    mask = torch.tensor([[0, 1]])
    itself = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=CPU,
        calculate_KL=settings["loss_type"] == "kto",
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **settings,
    )
    itself._compute_kl_logps = lambda *args: KTOTrainer._compute_kl_logps(itself, *args)
    batch = {"label": part == 0, "ref_logps": torch.zeros(len(ratios)), "ref_KL_logps": torch.zeros(len(kl_ratios))}
    for name, of in (("", ids[: len(ratios)]), ("KL_", ids[len(ratios) :])):
        batch[f"{name}input_ids"], batch[f"{name}completion_mask"] = of, mask.expand(len(of), -1)
        batch[f"{name}attention_mask"] = torch.ones_like(of)
    loss = KTOTrainer._compute_loss(itself, model, batch, False)
    return loss.item(), itself._metrics["train"]["kl"][0]


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("shift", [1.0, -3.0])  # a baseline above 0, and one that is raised to 0
def test_the_loss_is_that_of_trls_trainer(loss_type, shift):
    torch.manual_seed(0)
    ratios, kl_ratios, part = torch.randn(7) * 3, torch.randn(7) + shift, torch.tensor([0, 0, 0, 0, 1, 1, 1])
    settings = {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.7, "loss_type": loss_type}
    expected, kl = trls(ratios, kl_ratios, part, settings)
    baseline = kl_ratios.mean().clamp(min=0) if loss_type == "kto" else 0.0
    assert float(baseline) == pytest.approx(kl, abs=1e-5)
    assert value(kto(ratios, part, baseline, config(KTOConfig, **settings)), part) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("rows", [2, 3, 50])
def test_every_row_has_the_answers_of_another_row_and_all_are_used_once(rows):
    answers = [[f"good {i}", f"bad {i}"][: 1 + i % 2] for i in range(rows)]
    found = answers_of_others(answers, seed=3)
    assert sorted(found) == sorted(answers)
    assert all(own != other for own, other in zip(answers, found, strict=True))
    assert found == answers_of_others(answers, seed=3)


def test_answers_are_marked_by_their_field_and_the_role_of_their_row():
    pair = Row("p", "x", chosen="a", rejected="b", response="a", harmful_response="b", role="harmful")
    assert marked(pair) == {"desirable": "chosen", "undesirable": "rejected"}
    harmful = Row("h", "x", response="no", harmful_response="yes", role="harmful")
    assert marked(harmful) == {"desirable": "response", "undesirable": "harmful_response"}
    assert marked(Row("b", "x", response="yes")) == {"desirable": "response"}
    assert marked(Row("u", "x", rejected="yes")) == {"undesirable": "rejected"}


def partly_marked(mini_rows):
    """Pairs, and rows with one answer each, with and without an image."""
    good, bad = mini_rows["image_benign"][1], mini_rows["text_benign"][1]
    lone = {"chosen": None, "response": None, "rejected": None, "harmful_response": None}
    rows = [*mixed(mini_rows), replace(good, **lone | {"response": good.response})]
    return [*rows, replace(bad, **lone | {"rejected": "i will not help with that"})]


def by_definition(policy, reference, write, rows, others, beta):
    """(loss, z) of some rows."""

    def ratio(row, answer):
        return log_probability(policy, write, row, answer)[0] - log_probability(reference, write, row, answer)[0]

    kl = [ratio(row, answer) for row, of_other in zip(rows, others, strict=True) for answer in of_other]
    baseline = max(0.0, sum(kl) / len(kl))
    losses = []
    for row in rows:
        for mark, field in marked(row).items():
            r = ratio(row, getattr(row, field))
            gain = r - baseline if mark == "desirable" else baseline - r
            losses.append(1 - torch.tensor(beta * gain).sigmoid().item())
    return sum(losses) / len(losses), baseline


def test_the_loss_is_the_definition_with_the_adapter_switched_off_as_reference(
    loaded, renderer, family_name, mini_rows, tmp_path
):
    rows, write = partly_marked(mini_rows), renderer(family_name)
    reference, baselines = loaded(family_name).model.eval(), []
    for scale in (0.05, -0.05):  # one of them makes the answers of other rows likelier
        it = trainer(KTO, loaded(family_name), write, rows, tmp_path, beta=0.2)
        trained(it.model, scale).eval()
        expected, baseline = by_definition(it.model, reference, write, rows, it.data_collator.others, 0.2)
        for order in (range(6), [5, 3, 1, 0, 2, 4]):
            batch = it.data_collator([it.train_dataset[i] for i in order])
            assert it.compute_loss(it.model, batch).item() == pytest.approx(expected, abs=1e-4)
        assert it._metrics["train"]["kl"] == pytest.approx([baseline] * 2, abs=1e-3)
        baselines.append(baseline)
    assert max(baselines) > 0.05
    assert {"rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"} <= set(it._metrics["train"])


@pytest.mark.slow_for_qwen2_vl
def test_accumulation_changes_nothing(loaded, renderer, family_name, mini_rows, tmp_path):
    """Rows with one and with two answers: a mean over each pass would weight them differently."""
    rows = partly_marked(mini_rows)
    keys = ("loss/desirable", "loss/undesirable", "kl")
    same_when_accumulated(KTO, lambda: loaded(family_name), renderer(family_name), rows, tmp_path, keys)


def test_without_a_baseline_no_answers_of_other_rows_are_computed(loaded, renderer, mini_rows, tmp_path):
    rows = mini_rows["image_harmful"][:4] * 2
    it = trainer(KTO, loaded("llava"), renderer("llava"), rows, tmp_path, loss_type="apo_zero_unpaired")
    assert "mismatched" not in it.data_collator(list(it.train_dataset))
    it.train()
    lines = [line for line in it.state.log_history if "loss" in line]
    assert [line["kl"] for line in lines] == [0, 0]
    assert lines[0]["loss"] == pytest.approx(0.5, abs=1e-5)  # nothing is learned yet
    assert it.args.loss_type == "apo_zero_unpaired"


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_in_passes_of_two_rows_train_the_weights_of_one_process(tiny, tmp_path):
    methods = ("kto", "orpo", "simpo")
    for name, processes, batch in (("one", 1, 8), ("two", 2, 2)):
        train_every_method(tiny("llava"), tmp_path / name, processes, batch, methods=methods)
    for method in methods:
        same_trajectory(tmp_path / "one" / method, tmp_path / "two" / method)


@pytest.mark.slow
@pytest.mark.long
def test_rows_in_another_order_of_the_step_train_the_same_weights(tiny, tmp_path):
    cut = ["train.per_device_train_batch_size=2", "train.train_sampling_strategy="]
    same(
        *(
            trained_run(tiny("llava"), tmp_path / name, "kto", "padded", cut[0], cut[1] + name)
            for name in ("random", "group_by_length")
        )
    )


def test_the_reference_is_stored_with_the_answers_of_other_rows(tiny, tmp_path, monkeypatch):
    from align.methods import terms

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked, whole = [], terms.reference_of
    monkeypatch.setattr(terms, "reference_of", lambda *args: asked.append(1) or whole(*args))
    first = trained_run(tiny("llava"), tmp_path / "first", "kto", "auto", "stored_reference=true")
    assert len(asked) == 2 * STEPS
    same(first, trained_run(tiny("llava"), tmp_path / "second", "kto", "auto", "stored_reference=true"))
    assert len(asked) == 2 * STEPS + 1  # the first answers are compared


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([Row("r", "p")] * 2, "row r has neither a good nor a bad answer"),
        ([Row("r", "p", chosen=" ", rejected="b")] * 2, "row r has no `chosen`, which KTO needs"),
        ([Row("r", "p", chosen="a", rejected="a ")] * 2, "row r: `chosen` and `rejected`"),
        ([Row("r", "p", chosen="a", rejected="b")], "at least two rows"),
        ([Row("r", "p", response="a")] * 2, "none of the 2 rows has an undesirable one; add rows with `rejected` or"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_named(rows, expected):
    def check():
        for row in rows:
            KTO.check_row(row)
        KTO.check_rows(rows)

    with pytest.raises(UserError, match=expected):
        check()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["train.loss_type=sigmoid"], "train.loss_type=sigmoid: expected one of kto, apo_zero_unpaired"),
        (["train.beta=0"], "train.beta=0.0: expected more than 0"),
        (["train.undesirable_weight=-1"], "train.undesirable_weight=-1.0: expected 0 or more"),
        (["lora.lora_dropout=0.1"], "lora_dropout=0.1 would have no effect: trl's KTO .* train.disable_dropout=false"),
        (["train.sync_ref_model=true"], "sync_ref_model would have no effect: the reference model"),
    ],
)
def test_settings_that_cannot_be(tiny, tmp_path, more, expected):
    refuses(tiny("llava"), tmp_path, "kto", more, expected)


def test_a_twin_without_a_harmful_response_is_a_good_answer_and_a_pair():
    texts = ("caption", "query_leak", "query_free", "response", "benign_caption", "benign_response")
    images = {"image": ImageRef("a.png"), "benign_image": ImageRef("b.png")}
    unsafe, safe = rows_of(Twin(id="t", **dict(zip(texts, texts, strict=True)), **images), "pairs")
    assert list(marked(unsafe)) == ["desirable"]
    assert list(marked(safe)) == ["desirable", "undesirable"]


@pytest.mark.parametrize("model", available("models"))
@pytest.mark.parametrize("recipe", ["t_kto", "mm_kto", "controlled/image_free"])
def test_recipes_have_the_constants_of_docs_methods(recipe, model):
    train = compose_run([f"recipe={recipe}", f"model={model}", "method=kto"]).config.train
    assert (train.get("beta", KTOConfig.beta), train.get("desirable_weight", 1.0)) == (0.1, 1.0)
    assert train.get("undesirable_weight", 1.0) == (0.2 if model.startswith("mini_") else 1.0)


@pytest.mark.slow
@pytest.mark.long
def test_the_recipe_on_the_miniature(family_name, tmp_path):
    aligned(trained_on_the_miniature("mm_kto", family_name, tmp_path))
