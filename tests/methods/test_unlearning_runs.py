"""Runs of unlearning and safe unlearning: the reference model, the bound that stops a run, the rows of a step."""

import json

import pytest

from align.config.compose import compose_run
from align.data.assembly import training_data
from align.errors import UserError
from align.models.reference import ADAPTER_OFF, CONTINUED, COPY
from align.run_folder import RunFolder
from align.training.build import build_run
from align.training.run import train
from tests.support.small_run import arguments


def parts_run(model, out, method, *more):
    return arguments(model, out, f"recipe=mm_{method}", "evaluate.benchmark=[]", "train.max_steps=2", *more)


def asked(composed, folder):
    """What a run's reference model says of a batch, twice; its trainer, in training mode; which
    reference model it is.
    """
    data = training_data(composed.config)
    built = build_run(composed, data, RunFolder(folder))
    it = built.trainer
    it.model.train()
    batch = it.data_collator([it.train_dataset[i] for i in (0, 1, 30, 31)])
    return [it.ask_reference(batch["reference"]).clone() for _ in range(2)], it, built.reference


@pytest.mark.parametrize("method", [pytest.param("unlearning", marks=pytest.mark.slow), "safe_unlearning"])
def test_a_continued_adapter_is_compared_with_itself_without_its_dropout(tiny, tmp_path, method):
    first = ["lora.lora_dropout=0.5", "train.learning_rate=3e-2"]
    adapter = train(compose_run(parts_run(tiny("llava"), tmp_path / "first", method, *first))).weights
    again = parts_run(tiny("llava"), tmp_path / "again", method, f"model.adapter={adapter}")
    (one, other), it, reference = asked(compose_run(again), tmp_path / "again")
    assert (one == other).all()
    assert reference == CONTINUED
    (base, _), _, fresh = asked(compose_run(parts_run(tiny("llava"), tmp_path / "fresh", method)), tmp_path / "fresh")
    assert fresh == ADAPTER_OFF
    assert (one - base).abs().max() > 1e-3  # the adapter, not the base
    assert it.model.training


@pytest.mark.parametrize("method", ["unlearning", "safe_unlearning"])
def test_full_fine_tuning_is_compared_with_a_copy_that_stays(tiny, tmp_path, method):
    command = parts_run(
        tiny("llava"), tmp_path / "run", method, "lora=null", "train.learning_rate=1e-3", "train.max_steps=3"
    )
    (before, _), it, reference = asked(compose_run(command), tmp_path / "run")
    it.train()
    batch = it.data_collator([it.train_dataset[i] for i in (0, 1, 30, 31)])
    assert (it.ask_reference(batch["reference"]) == before).all()
    assert reference == COPY
    losses = [entry for entry in it.state.log_history if "loss" in entry]
    if method == "unlearning":
        assert losses[0]["loss/kl"] == pytest.approx(0, abs=1e-6)
        assert losses[2]["loss/kl"] > 1e-6  # the first step warms up, at rate 0


def unlearning_run(model, out, *more):
    return arguments(model, out, "recipe=mm_unlearning", "evaluate.benchmark=[]", *more)


def test_a_run_whose_harmful_loss_passes_its_bound_stops_and_says_so(tiny, tmp_path, capsys):
    run = train(compose_run(unlearning_run(tiny("llava"), tmp_path / "run", "train.max_harmful_loss=1")))
    manifest = run.manifest()
    assert (manifest["status"], manifest["steps"]) == ("finished", 1)
    (line,) = [json.loads(line) for line in run.steps_file.open()]
    stopped = manifest["stopped"]
    assert stopped.startswith("stopped at step 1: NLL(harmful answer) is ")
    assert stopped.endswith(f"above train.max_harmful_loss=1; the rows of this step: {', '.join(line['rows'])}")
    assert stopped in capsys.readouterr().out


def test_each_step_holds_all_parts_and_each_is_logged(tiny, tmp_path):
    run = train(compose_run(unlearning_run(tiny("llava"), tmp_path / "run", "data.benign.rows=10")))
    roles = [[row.partition("/")[0] for row in json.loads(line)["rows"]] for line in run.steps_file.open()]
    assert all(sorted(step) == ["benign"] * 4 + ["harmful"] * 4 for step in roles)
    assert run.manifest()["order_facts"] == [
        "every step holds harmful and benign rows 1:1: an epoch takes 24 rows 1.00 times and 10 rows 2.40 times"
    ]
    logged = [json.loads(line) for line in (run.path / "log.jsonl").open()]
    for entry in (entry for entry in logged if "loss" in entry):
        terms = -0.5 * entry["loss/harmful"] + entry["loss/safe"] + entry["loss/kl"]
        assert float(entry["loss"]) == pytest.approx(terms, abs=1e-3)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["train.per_device_train_batch_size=1"], "a forward pass of 1 rows .* must be a multiple of 2: .* 1:1"),
        (["train.proportion=2,1"], r"a forward pass of 8 rows .* must be a multiple of 3: .* 2:1 \(train.proportion\)"),
        (["train.proportion=1"], r"train.proportion=\[1\]: expected two numbers"),
        (["train.max_harmful_loss=nan"], "train.max_harmful_loss=nan: expected more than 0"),
        (["recipe=mm_safe_unlearning", "train.logp=median"], "train.logp=median: expected mean or sum"),
        (["recipe=mm_safe_unlearning", "train.beta=0"], "train.beta=0.0: expected more than 0"),
        (["train.loss_type=dft"], "train.loss_type would have no effect: the loss is the method's own"),
    ],
)
def test_settings_that_cannot_be(tiny, tmp_path, more, expected):
    with pytest.raises(UserError, match=expected):
        train(compose_run(unlearning_run(tiny("llava"), tmp_path / "run", *more)))
