"""Supervised fine-tuning: the same as trl's own vision pipeline where both can do a thing."""

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from align.data.images import load_image
from align.errors import UserError
from align.methods.sft import SFT
from align.methods.trainer import to_dataset
from tests.support.small_run import TWO_STEPS


def arguments(folder, **more):
    return SFTConfig(output_dir=str(folder), **(TWO_STEPS | more))


def ours(it, renderer, rows, folder, **more):
    args = arguments(folder, **more)
    return SFT(
        model=it.model,
        args=args,
        data_collator=SFT.collator(renderer, args),
        train_dataset=to_dataset(rows),
        processing_class=it.processor,
    )


def trls(it, renderer, rows, folder):
    """trl's own collator on the same texts: prompts as strings, so it must be told of the beginning of sequence."""
    bos = (it.processor.tokenizer.bos_token or "") if it.family.model_type == "llava" else ""
    end = it.family.end_of_turn(it.processor)
    gap = " " if it.family.model_type == "llava" else ""
    records = [
        {
            "prompt": f"{bos} {renderer.prompt_text(row)}" if bos else renderer.prompt_text(row),
            "completion": f"{gap}{row.response}{end}",
            "images": [load_image(image, row.id) for image in row.images],
        }
        for row in rows
    ]
    return SFTTrainer(
        model=it.model, args=arguments(folder), train_dataset=Dataset.from_list(records), processing_class=it.processor
    )


@pytest.mark.parametrize(
    "parts", [("text_harmful",), ("image_harmful",), ("text_benign", "image_benign")], ids=["text", "image", "mixed"]
)
def test_weights_after_two_steps_are_those_of_trls_own_pipeline(
    loaded, renderer, family_name, mini_rows, tmp_path, parts
):
    rows = [row for group in zip(*(mini_rows[part] for part in parts), strict=True) for row in group][:8] * 2
    mine = ours(loaded(family_name), renderer(family_name), rows, tmp_path / "a")
    theirs = trls(loaded(family_name), renderer(family_name), rows, tmp_path / "b")
    start = {name: p.detach().clone() for name, p in mine.model.named_parameters()}
    mine.train()
    theirs.train()
    logs = [[entry["loss"] for entry in trainer.state.log_history if "loss" in entry] for trainer in (mine, theirs)]
    assert logs[0] == pytest.approx(logs[1], abs=1e-6)
    update, difference = 0.0, 0.0
    for (name, p), (_, q) in zip(mine.model.named_parameters(), theirs.model.named_parameters(), strict=True):
        update += (p - start[name]).abs().sum().item()
        difference += (p - q).abs().sum().item()
    assert update > 1
    assert difference / update < 1e-5


def test_the_loss_is_the_mean_negative_log_likelihood_of_the_supervised_tokens(
    loaded, renderer, family_name, mini_rows, tmp_path
):
    rows = mini_rows["image_benign"][:3]
    trainer = ours(loaded(family_name), renderer(family_name), rows, tmp_path)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    total, count = 0.0, 0
    for row in rows:  # one by one, from the logits, by the definition
        rendered = renderer(family_name).render(row, row.response)
        ids = torch.tensor([rendered.prompt_ids + rendered.answer_ids])
        aligned = {k: torch.tensor([v + [0] * len(rendered.answer_ids)]) for k, v in rendered.aligned.items()}
        with torch.no_grad():
            model = loaded(family_name).model
            logits = model(
                input_ids=ids, attention_mask=torch.ones_like(ids), **aligned, **rendered.image_inputs
            ).logits[0]
        start = len(rendered.prompt_ids)
        log_p = logits[start - 1 : -1].log_softmax(-1)
        total -= sum(log_p[i, token].item() for i, token in enumerate(rendered.answer_ids))
        count += len(rendered.answer_ids)
    loss = trainer.compute_loss(trainer.model, batch)
    assert loss.item() == pytest.approx(total / count, abs=1e-5)


@pytest.mark.slow_for_qwen2_vl
def test_accumulation_changes_nothing(loaded, renderer, family_name, mini_rows, tmp_path):
    rows = mini_rows["image_harmful"] + mini_rows["text_benign"]
    weights = []
    for size, accumulation in ((4, 1), (2, 2), (1, 4)):
        more = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        trainer = ours(loaded(family_name), renderer(family_name), rows, tmp_path / str(size), **more)
        trainer.train()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    start = torch.cat([p.detach().flatten() for p in loaded(family_name).model.parameters()])
    update = (weights[0] - start).norm()
    for other in weights[1:]:
        assert (other - weights[0]).norm() / update < 1e-4


def test_a_loss_that_is_no_number_stops_and_names_the_rows(loaded, renderer, family_name, mini_rows, tmp_path):
    it = loaded(family_name)
    with torch.no_grad():
        it.model.get_output_embeddings().weight.fill_(float("nan"))
    trainer = ours(it, renderer(family_name), mini_rows["image_benign"], tmp_path)
    with pytest.raises(UserError, match=r"the loss is nan; rows of this batch: image_benign-train-\d"):
        trainer.train()
