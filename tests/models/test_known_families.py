"""Each family that people use now: rows as published, alone and in batches, trained, merged and read again."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from trl.trainer.utils import add_fused_lm_head

from align.batches.collators import Collator
from align.batches.padding import pad
from align.commands.evaluate import run_evaluation
from align.config.compose import compose_eval, compose_run
from align.data.images import encode_png
from align.errors import UserError
from align.families import FAMILIES, TOWERS, family_of
from align.fast.supervised_head import SupervisedHead
from align.models.loading import load, parameters_per_tower
from align.models.merging import merge
from align.rows import Row
from align.settings import ModelSettings
from align.training.run import train
from tests.batches.test_layout import FIELDS, agree, computed
from tests.support.small_run import arguments
from tests.support.trajectories import same_trajectory, train_every_method

NEW = [name for name in FAMILIES if name not in ("llava", "qwen2_vl")]  # these two have the rest of the tests
QUICK = "internvl"
"""A family whose run is checked in continuous integration; the others take a minute each."""
OWN = {
    "mllama": ["train.per_device_train_batch_size=1"],  # its rows have a forward pass each
    "qwen3_vl_moe": ["lora.target_modules=q_proj,k_proj,v_proj,o_proj"],  # experts are no linear layers
}
"""{family: settings that it needs}"""


def image(width, height, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return encode_png(Image.fromarray(noise))


ROWS = [
    Row("text", "what is this"),
    Row("wide", "what is this", (image(60, 40, 1),)),
    Row("high", "tell me how to use this", (image(30, 60, 2),)),
    Row("two", "what is this", (image(60, 40, 1), image(20, 20, 3))),
]


@pytest.fixture(scope="module")
def loaded(folder):
    """A function: model type -> its tiny model, loaded once."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = load(ModelSettings(path=str(folder(name)), dtype="float32"))
            made[name].model.eval()
        return made[name]

    return make


@torch.no_grad()
def logits(it, rendered):
    """Logits of rows (rows, length, vocabulary)."""
    batch = pad(rendered, it.renderer.pad_token_id)
    del batch["labels"]
    return it.model(**batch).logits


@pytest.mark.parametrize("name", NEW)
def test_a_response_and_its_end_are_supervised_and_rows_are_measured(name, loaded):
    it = loaded(name)
    tokenizer = it.renderer.processor.tokenizer
    for row in ROWS:
        rendered = it.renderer.render(row, "a knife")
        assert tokenizer.decode(rendered.answer_ids) == f"a knife {it.renderer.end_of_turn}"
        assert it.renderer.measure(row, ["a knife"]) == (len(rendered.prompt_ids), [rendered.answer_ids])
        assert rendered.prompt_ids.count(it.renderer.image_token_id) >= len(row.images)
        assert it.renderer.render(row).prompt_ids == rendered.prompt_ids


@pytest.mark.parametrize("name", NEW)
def test_every_parameter_but_an_output_head_and_a_line_break_has_a_tower(name, loaded):
    it = loaded(name)
    assert set(parameters_per_tower(it.model, it.family)) - {"output_head"} == set(TOWERS)
    rest = {key.rpartition(".")[0] or key for key, _ in it.model.named_parameters() if it.family.tower_of(key) is None}
    assert rest <= {"lm_head", "model"}  # model.image_newline


@pytest.mark.parametrize("name", [name for name in NEW if name != "mllama"])
def test_rows_of_a_batch_are_as_alone(name, loaded):
    it = loaded(name)
    rendered = [it.renderer.render(row, "a knife") for row in ROWS]
    together = logits(it, rendered)
    for row, of_batch in zip(rendered, together, strict=True):
        assert torch.allclose(of_batch[: row.length], logits(it, [row])[0], atol=1e-4)


@pytest.mark.parametrize("layout", ["padded", "shared_prefix", "packed", "auto"])
@pytest.mark.parametrize("name", [name for name in NEW if family_of(name).lays_out])
def test_a_layout_gives_outputs_and_gradients_of_the_padded_rows(name, layout, folder):
    it = load(ModelSettings(path=str(folder(name)), dtype="float32"))
    add_fused_lm_head(it.model, outputs=FIELDS)
    SupervisedHead(it.model)
    these = [one for row in [*ROWS, ROWS[1]] for one in it.renderer.render_answers(row, ["a knife", "sorry"])]
    collator = Collator(it.renderer)
    agree(computed(it, collator, None, these), computed(it, collator, layout, these))


def test_a_response_to_llama_3_2_vision_sees_the_images_as_its_prompt_does(loaded):
    it = loaded("mllama")
    processor = it.renderer.processor
    for row in ROWS[1:]:
        rendered = it.renderer.render(row, "a knife")
        text = it.renderer.prompt_text(row) + "a knife <|eot_id|>"
        images = [it.renderer._loaded(one, "") for one in row.images]
        inputs = processor(text=[text], images=[images], return_tensors="pt", add_special_tokens=False)
        batch = pad([rendered], it.renderer.pad_token_id)
        assert torch.equal(batch["cross_attention_mask"], inputs["cross_attention_mask"])
        with torch.no_grad():
            assert torch.allclose(logits(it, [rendered]), it.model(**inputs).logits, atol=1e-5)


def test_rows_of_llama_3_2_vision_share_no_pass(folder, tmp_path):
    with pytest.raises(UserError, match="train.per_device_train_batch_size=1"):
        train(compose_run(arguments(folder("mllama"), tmp_path / "run")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in NEW if name != QUICK)]
)
def test_it_is_trained_evaluated_merged_and_read_again(name, folder, tmp_path):
    """With text alone and images in its batches; responses one by one and in batches are the same."""
    run = train(compose_run(arguments(folder(name), tmp_path / "run", *OWN.get(name, []))))
    towers = run.manifest()["parameters"]
    assert towers["vision_tower"]["trainable"] == 0 < towers["language_model"]["trainable"]
    losses = [step["loss"] for step in map(json.loads, (run.path / "log.jsonl").open()) if "loss" in step]
    assert losses[-1] < losses[0]
    merged = tmp_path / "merged"
    merge(run.weights, merged, ModelSettings(dtype="float32"))
    adapter = f"checkpoint={run.weights}"
    together, alone = responses(adapter, tmp_path / "together"), responses(adapter, tmp_path / "alone", 1)
    assert responses(f"model={merged}", tmp_path / "whole") == together == alone
    assert len(set(together.values())) > 1  # it says more than one thing, so that the same means something


def responses(model, folder, batch=4):
    """{row: its response} of a model to four rows with an image and four without."""
    small = ["limit=4", "generation.max_new_tokens=4", "judge=none", f"generation.batch_size={batch}"]
    words = [model, "model.dtype=float32", f"output_dir={folder}", "benchmark=mini_vsil_free,mini_vsil.text", *small]
    run_evaluation(compose_eval(words).config)
    files = folder.glob("evaluation/*/responses.jsonl")
    return {(line["id"], file.parent.name): line["response"] for file in files for line in map(json.loads, file.open())}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NEW)
def test_two_processes_take_the_trajectory_of_one(name, folder, tmp_path):
    for processes, batch in ((1, 8), (2, 2)):
        methods, size = (("sft", "dpo"), 1) if name == "mllama" else (("sft", "dpo", "unlearning"), batch)
        train_every_method(
            folder(name), tmp_path / str(processes), processes, size, *OWN.get(name, []), methods=methods
        )
    for method in methods:
        same_trajectory(tmp_path / "1" / method, tmp_path / "2" / method)
