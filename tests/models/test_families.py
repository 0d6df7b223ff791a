"""A family is one small file; without one a model can be evaluated, and says that it cannot be trained."""

import json

import pytest
from PIL import Image

from align.commands.evaluate import run_evaluation
from align.config.compose import compose_eval, compose_run
from align.data.images import encode_png
from align.errors import UserError
from align.families import Family, family_of
from align.models.loading import load
from align.rows import Row
from align.settings import ModelSettings
from align.training.run import train
from tests.support.small_run import arguments

IMAGE = encode_png(Image.new("RGB", (60, 40), "red"))
OWN = Family("vipllava", {"language_model": "model.language_model", "vision_tower": "model.vision_tower"})


def test_gemma_3_writes_an_image_and_ends_a_turn_in_its_own_way(folder):
    renderer = load(ModelSettings(path=str(folder("gemma3")), dtype="float32")).renderer
    rendered = renderer.render(Row("a", "what is this", (IMAGE,)), "a knife")
    tokenizer = renderer.processor.tokenizer
    image = f"<start_of_image> {'<image_soft_token> ' * 16}<end_of_image>"
    assert tokenizer.decode(rendered.prompt_ids) == (
        f"<bos> <start_of_turn> user {image} what is this <end_of_turn> <start_of_turn> model"
    )
    assert tokenizer.decode(rendered.answer_ids) == "a knife <end_of_turn>"
    assert sum(rendered.aligned["token_type_ids"]) == 16
    filler = renderer.filler()
    assert filler.prompt_ids == [tokenizer.convert_tokens_to_ids("<image_soft_token>")] * 16
    for token in ("<start_of_image>", "<image_soft_token>"):
        with pytest.raises(UserError, match=f"the prompt contains .* token '{token}'"):
            renderer.render(Row("a", f"what is {token}"), "a knife")


@pytest.mark.slow
def test_gemma_3_is_trained_and_evaluated(folder, tmp_path):
    run = train(compose_run(arguments(folder("gemma3"), tmp_path / "run", "trainable=multi_modal_projector")))
    towers = run.manifest()["parameters"]
    assert towers["multi_modal_projector"]["trainable"] == towers["multi_modal_projector"]["all"] > 0
    assert towers["vision_tower"]["trainable"] == 0 < towers["language_model"]["trainable"]
    losses = [json.loads(line).get("loss") for line in (run.path / "log.jsonl").open()]
    assert losses[-2] < losses[0]
    small = ["benchmark=mini_vsil_free", "limit=4", "generation.max_new_tokens=3"]
    assert run_evaluation(compose_eval([f"run={run.path}", *small]).config)[1]["mini_vsil_free"]["n"] == 4


def test_a_model_of_no_known_family_is_evaluated_and_not_trained(folder, tmp_path):
    model = folder("vip_llava")
    small = ["benchmark=mini_vsil,mini_vsil_free", "limit=3", "generation.max_new_tokens=3"]
    config = compose_eval([f"model={model}", "model.dtype=float32", f"output_dir={tmp_path / 'eval'}", *small]).config
    assert [result["n"] for result in run_evaluation(config)[1].values()] == [3, 3]
    with pytest.raises(UserError, match="type 'vipllava' .*trained.*families.* llava, "):
        train(compose_run(arguments(model, tmp_path / "run")))


def test_a_family_of_ones_own_is_named_by_where_it_is():
    assert family_of("vipllava", "tests.models.test_families:OWN") is OWN
    assert family_of("llava_like", "llava").model_type == "llava"
    with pytest.raises(UserError, match="model.family=lava: unknown .did you mean 'llava'"):
        family_of("vipllava", "lava")


def test_gemma_3s_rows_measure_what_they_are_rendered_to(folder):
    it = load(ModelSettings(path=str(folder("gemma3")), dtype="float32")).renderer
    images = tuple(encode_png(Image.new("RGB", size, "red")) for size in ((40, 30), (64, 64)))
    for n in range(3):
        row = Row("r", "what is this", images=images[:n])
        assert it.measure(row, ["a cup"])[0] == len(it.render(row, "a cup").prompt_ids)
