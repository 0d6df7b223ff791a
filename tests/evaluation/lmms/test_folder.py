"""The folder that lmms_eval loads gives what our renderer gives: the same text, token ids and
pixels, the same weights.
"""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from align.data.images import encode_png, load_image
from align.evaluation.lmms.arguments import FAMILIES
from align.evaluation.lmms.folder import prepared, write_processor
from align.models.loading import Loaded, ModelSource
from align.models.merging import probe
from align.models.processors import load_processor
from align.rows import Row
from align.settings import ModelSettings
from tests.support.adapters import adapted, saved

SYSTEM = """You are "careful", {{ 'and' }} say\nso: don't guess."""
OTHERS = "You are a helpful assistant."
"""What lmms_eval's qwen2_vl puts first unless it is told otherwise."""


def noise_image(width, height):
    image = Image.effect_noise((width, height), 80).convert("RGB")
    return encode_png(image)


def as_lmms_eval_asks(processor, family, row):
    """Text and inputs as its class makes them: llava_hf by the processor's template; qwen2_vl after
    a system turn of its own.
    """
    decoded = [load_image(image, "row") for image in row.images]
    content = [*({"type": "image", "url": image} for image in decoded), {"type": "text", "text": row.prompt}]
    turns = [{"role": "user", "content": content}]
    if FAMILIES[family].writes_system_turn:
        turns = [{"role": "system", "content": OTHERS}, *turns]
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return text, processor(images=decoded, text=[text], return_tensors="pt")


@pytest.mark.parametrize("system_prompt", [None, SYSTEM])
def test_prompts_and_images_are_ours(any_renderer, system_prompt, tmp_path):
    processor, of = any_renderer.processor, any_renderer.family
    family = of.model_type
    pad = "pad" if FAMILIES[family].pads else None
    known = Loaded(None, processor, of, "x", "0", ModelSettings(system_prompt=system_prompt, image_aspect_ratio=pad))
    renderer = known.renderer
    write_processor(tmp_path, FAMILIES[family], known)
    theirs = load_processor(str_with_config(tmp_path, family))
    for size in ((61, 33), (33, 60), (40, 40)):
        row = Row("1", "what is this ?", images=(noise_image(*size),))
        ours = renderer.render(row)
        text, inputs = as_lmms_eval_asks(theirs, family, row)
        assert text == renderer.prompt_text(row)
        assert inputs["input_ids"][0].tolist() == ours.prompt_ids
        assert torch.equal(inputs["pixel_values"], ours.image_inputs["pixel_values"])


def str_with_config(folder, family):
    (folder / "config.json").write_text(f'{{"model_type": "{family}"}}')
    return str(folder)


def test_without_padding_the_image_is_another(loaded, tmp_path):
    """So that the test above could fail."""
    it = loaded("llava")
    it.settings = replace(it.settings, image_aspect_ratio="pad")
    write_processor(tmp_path, replace(FAMILIES["llava"], pads=False), it)
    row = Row("1", "what is this ?", images=(noise_image(61, 33),))
    _, inputs = as_lmms_eval_asks(load_processor(str_with_config(tmp_path, "llava")), "llava", row)
    assert not torch.equal(inputs["pixel_values"], it.renderer.render(row).image_inputs["pixel_values"])


def test_a_turn_of_a_task_stays_where_the_class_writes_none(loaded, tmp_path):
    it = loaded("llava")
    it.settings = replace(it.settings, system_prompt="ours")
    write_processor(tmp_path, FAMILIES["llava"], it)
    theirs = AutoProcessor.from_pretrained(str_with_config(tmp_path, "llava"))
    turns = [{"role": role, "content": [{"type": "text", "text": role}]} for role in ("system", "user")]
    assert "ours" not in theirs.apply_chat_template(turns, tokenize=False)
    assert "ours" in theirs.apply_chat_template(turns[1:], tokenize=False)


@pytest.mark.slow_for_qwen2_vl
def test_an_adapter_is_merged_and_nothing_is_left(loaded, family_name, tmp_path):
    it = adapted(loaded(family_name))
    adapter = saved(it, tmp_path / "adapter")
    source = ModelSource(it.settings, str(adapter))
    expected = probe(it)
    with prepared(source, source.load_without_weights(), FAMILIES[family_name], tmp_path / "beside") as (folder, facts):
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto")
        it.model = model
        assert (probe(it) - expected).abs().max() < 1e-4
        assert [fact.split(" (")[0] for fact in facts] == ["the adapter merged into its base"]
    assert list((tmp_path / "beside").iterdir()) == []


def test_whole_weights_are_linked_and_loaded_in_the_type_that_we_load(tiny, tmp_path):
    source = ModelSource(ModelSettings(name="tiny", path=str(tiny("llava")), dtype="bfloat16"))
    with prepared(source, source.load_without_weights(), FAMILIES["llava"], tmp_path) as (folder, facts):
        assert facts == []
        assert (folder / "model.safetensors").is_symlink()
        assert AutoModelForImageTextToText.from_pretrained(folder, dtype="auto").dtype == torch.bfloat16
    assert (tiny("llava") / "model.safetensors").is_file()
