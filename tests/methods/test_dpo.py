"""Direct preference optimisation: the same as trl's own vision pipeline where both can do a thing, and by hand."""

import math

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer

from align.config.compose import compose_run
from align.data.images import load_image
from align.errors import UserError
from align.methods.dpo import DPO, LOSSES
from align.methods.trainer import to_dataset
from align.models.lora import target_modules
from align.rows import Row
from align.settings import Lora
from align.training.run import train
from tests.support.adapters import trained
from tests.support.definition import distributions
from tests.support.small_run import TWO_STEPS, arguments


def trainer(it, renderer, rows, folder, **more):
    """Ours, on a fresh adapter of a loaded model."""
    args = DPOConfig(output_dir=str(folder), max_length=None, **(TWO_STEPS | more))
    return DPO(
        model=it.model,
        args=args,
        data_collator=DPO.collator(renderer, args),
        train_dataset=to_dataset(rows),
        processing_class=it.processor,
        peft_config=adapter(it),
    )


def adapter(it):
    return LoraConfig(r=4, target_modules=target_modules(it.model, it.family, Lora()), task_type="CAUSAL_LM")


def theirs(it, renderer, rows, folder, **more):
    """trl's own collator on the same texts: prompts as strings, so it must be told of the beginning of sequence."""
    llava = it.family.model_type == "llava"
    start, gap = (f"{it.processor.tokenizer.bos_token} ", " ") if llava else ("", "")
    end = it.family.end_of_turn(it.processor)
    records = [
        {
            "prompt": f"{start}{renderer.prompt_text(row)}",
            "chosen": f"{gap}{row.chosen}{end}",
            "rejected": f"{gap}{row.rejected}{end}",
            "images": [load_image(image, row.id) for image in row.images],
        }
        for row in rows
    ]
    args = DPOConfig(output_dir=str(folder), max_length=None, **(TWO_STEPS | more))
    return DPOTrainer(
        model=it.model,
        args=args,
        train_dataset=Dataset.from_list(records),
        processing_class=it.processor,
        peft_config=adapter(it),
    )


def log_of(it, *keys):
    return [[entry[key] for key in keys] for entry in it.state.log_history if "loss" in entry]


@pytest.mark.slow_for_qwen2_vl
@pytest.mark.parametrize(
    ("part", "loss_type"), [("text_harmful", "sigmoid"), ("image_harmful", "sigmoid"), ("image_harmful", "ipo")]
)
def test_losses_and_rewards_are_those_of_trls_own_pipeline(
    loaded, renderer, family_name, mini_rows, tmp_path, part, loss_type
):
    rows = mini_rows[part][:4] * 2
    keys = ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "num_tokens")
    logs = []
    for make in (trainer, theirs):
        torch.manual_seed(0)
        it = make(
            loaded(family_name), renderer(family_name), rows, tmp_path, loss_type=[loss_type], label_smoothing=0.1
        )
        it.train()
        logs.append(log_of(it, *keys))
    assert len(logs[0]) == 2
    for ours, trls in zip(*logs, strict=True):
        assert ours == pytest.approx(trls, abs=1e-5)


def log_probability(it, renderer, row, answer):
    """(log p of an answer, how many tokens it has)."""
    log_p, ids = distributions(it, renderer, row, answer)
    return log_p.gather(1, ids[:, None]).sum().item(), len(ids)


def test_the_loss_is_rafailovs_with_the_adapter_switched_off_as_reference(
    loaded, renderer, family_name, mini_rows, tmp_path
):
    rows = [*mini_rows["image_harmful"][:2], mini_rows["text_harmful"][0]]
    more = {"beta": 0.3, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}
    it = trainer(loaded(family_name), renderer(family_name), rows, tmp_path, **more)
    trained(it.model)
    reference, write = loaded(family_name).model.eval(), renderer(family_name)
    it.model.eval()
    losses, nll, tokens = [], 0.0, 0
    for row in rows:
        (chosen, n), (rejected, _) = (log_probability(it.model, write, row, a) for a in (row.chosen, row.rejected))
        ref_chosen, ref_rejected = (log_probability(reference, write, row, a)[0] for a in (row.chosen, row.rejected))
        assert abs(chosen - ref_chosen) > 1e-2
        margin = 0.3 * ((chosen - ref_chosen) - (rejected - ref_rejected))
        losses.append(math.log(1 + math.exp(-margin)))
        nll, tokens = nll - chosen, tokens + n
    batch = it.data_collator([it.train_dataset[i] for i in range(3)])
    loss = it.compute_loss(it.model, batch)
    assert loss.item() == pytest.approx(sum(losses) / 3 + 0.5 * nll / tokens, abs=1e-4)


@pytest.mark.slow_for_qwen2_vl
def test_accumulation_changes_nothing(loaded, renderer, family_name, mini_rows, tmp_path):
    """Answers of different lengths, so that a mean over each forward pass would differ from one over the step."""
    rows = mini_rows["image_harmful"] + mini_rows["image_benign"]
    logs, weights = [], []
    for size in (4, 1):
        torch.manual_seed(0)
        more = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": 4 // size,
            "loss_type": ["sigmoid", "sft"],
        }
        it = trainer(loaded(family_name), renderer(family_name), rows, tmp_path, loss_weights=[1.0, 1.0], **more)
        it.train()
        logs.append([entry[0] for entry in log_of(it, "loss")])
        weights.append(torch.cat([p.detach().flatten() for n, p in it.model.named_parameters() if "lora_B" in n]))
    assert logs[0] == pytest.approx(logs[1], abs=1e-4)
    assert (weights[0] - weights[1]).norm() / weights[0].norm() < 1e-3


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            Row("r", "p", chosen="a"),
            "row r has no `rejected`, which DPO needs; .*: data.r.harmful_response=generate",
        ),
        (Row("r", "p", chosen=" ", rejected="b"), "row r has no `chosen`"),
        (Row("r", "p", chosen="a", rejected="a"), "row r: `chosen` and `rejected`"),
        (Row("r", "p", chosen="a", rejected=" a\n"), "row r: `chosen` and `rejected`"),
    ],
)
def test_rows_that_are_no_preference_are_named(row, expected):
    with pytest.raises(UserError, match=expected):
        DPO.check_row(row)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["train.loss_type=sft"], "sft alone is method=sft"),
        (["train.loss_type=sigmoyd"], "train.loss_type: 'sigmoyd' .*sigmoid, hinge, ipo"),
        (
            ["train.loss_type=sigmoid,sigmoid", "train.loss_weights=1.0,2.0"],
            "train.loss_type: sigmoid .*twice; give it once",
        ),
        (
            ["train.loss_type=aot", "train.per_device_train_batch_size=2"],
            "aot sorts the pairs .* a step of 8 pairs into passes of 2",
        ),
        (["lora.lora_dropout=0.1"], "lora_dropout=0.1 would have no effect: .* train.disable_dropout=false"),
        (
            ["train.sync_ref_model=true"],
            "sync_ref_model would have no effect: the reference model .*; remove it",
        ),
    ],
)
def test_settings_that_cannot_be(tiny, tmp_path, more, expected):
    command = arguments(tiny("llava"), tmp_path / "run", "method=dpo", "train.loss_weights=1.0", *more)
    with pytest.raises(UserError, match=expected):
        train(compose_run(command))


@pytest.mark.long
@pytest.mark.slow
def test_every_loss_of_trl_trains(loaded, renderer, mini_rows, tmp_path):
    rows = mini_rows["image_harmful"][:2] + mini_rows["text_benign"][:2]
    found = {}
    for loss in LOSSES:
        more = {"loss_type": [loss, "sft"] if loss != "sft" else ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}
        it = trainer(loaded("llava"), renderer("llava"), rows, tmp_path, label_smoothing=0.1, max_steps=1, **more)
        it.train()
        found[loss] = log_of(it, "loss", "grad_norm")[0]
    assert all(math.isfinite(value) for values in found.values() for value in values)
    assert all(gradient > 0 for _, gradient in found.values())


def test_the_reference_takes_no_second_copy_of_the_model(loaded, renderer, mini_rows, tmp_path):
    it = trainer(loaded("llava"), renderer("llava"), mini_rows["text_harmful"], tmp_path)
    assert it.ref_model is None
    assert set(it.model.peft_config) == {"default"}
