"""Families, processors without torchvision, and which modules get an adapter."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from align.errors import UserError
from align.families import TOWERS, family_of
from align.models.loading import load, load_checkpoint, parameters_per_tower
from align.models.lora import lora_config, target_modules
from align.models.processors import load_processor
from align.models.trainable import modules_of
from align.settings import Lora, ModelSettings

LINEAR = Lora().target_modules


def test_every_parameter_but_the_output_head_belongs_to_a_tower(loaded, family_name):
    it = loaded(family_name)
    counts = parameters_per_tower(it.model, it.family)
    assert set(counts) == {*TOWERS, "output_head"}
    assert counts["output_head"]["all"] == it.model.get_output_embeddings().weight.numel()
    assert sum(count["all"] for count in counts.values()) == sum(p.numel() for p in it.model.parameters())


def test_lora_reaches_the_language_model_only(loaded, family_name):
    it = loaded(family_name)
    names = target_modules(it.model, it.family, Lora())
    assert len(names) == 3 * 7  # three layers, seven linear maps each
    assert all(name.startswith("model.language_model.") for name in names)


def test_the_vision_tower_gets_adapters_when_asked(loaded, family_name):
    it = loaded(family_name)
    linear = {"llava": ["q_proj", "v_proj"], "qwen2_vl": ["qkv"]}[family_name]
    names = target_modules(it.model, it.family, Lora(towers=["vision_tower"], target_modules=linear))
    assert names
    assert all(it.family.tower_of(name) == "vision_tower" for name in names)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            Lora(target_modules=["qq_proj"]),
            "'qq_proj'.*match no.* language_model; .*layers.* down_proj, gate_proj, ",
        ),
        (Lora(target_modules=["q_proj", "typo"]), "'typo' matches no linear layer"),
        (Lora(towers=["eyes"]), "'eyes'.* one of vision_tower"),
        (Lora(towers=["language_model", "multi_modal_projector"]), "match no.* of multi_modal_projector"),
        (Lora(target_modules=["q_proj", "eyes:q_proj"]), "'eyes:q_proj' .*'eyes'.* one of vision_tower"),
        (
            Lora(target_modules=["q_proj", "vision_tower:all-linear"]),
            "'vision_tower:all-linear' is for vision_tower, .* lora.towers=language_model; .*"
            "lora.towers=language_model,vision_tower",
        ),
        (
            Lora(towers=["language_model", "vision_tower"], target_modules=["language_model:q_proj"]),
            "match no.* of vision_tower; .*layers.* fc1, fc2",
        ),
        (
            Lora(
                towers=["language_model", "vision_tower"],
                target_modules=["all-linear", "vision_tower:gate_proj"],
            ),
            "'vision_tower:gate_proj' matches no linear layer of vision_tower",
        ),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error(loaded, family_name, settings, expected):
    it = loaded(family_name)
    with pytest.raises(UserError, match=expected):
        target_modules(it.model, it.family, settings)


@pytest.mark.parametrize(
    ("folder", "language", "vision"),
    [("llava-1.5-7b-hf", 32 * 7, 24 * 6 + 0), ("qwen2-vl-7b-instruct", 28 * 7, 32 * 4)],
)
def test_modules_of_the_real_models_resolved_without_weights(shared, folder, language, vision):
    config = AutoConfig.from_pretrained(str(shared / "hub" / folder))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    family = family_of(config.model_type)
    assert len(target_modules(model, family, Lora())) == language
    linear = [
        n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and family.tower_of(n) == "vision_tower"
    ]
    assert len(linear) == vision
    projector = {"llava": "model.multi_modal_projector", "qwen2_vl": "model.visual.merger"}[config.model_type]
    assert modules_of(model, family, "multi_modal_projector") == [projector]
    tower = [p for name in modules_of(model, family, "vision_tower") for p in model.get_submodule(name).parameters()]
    assert sum(p.numel() for p in tower) == parameters_per_tower(model, family)["vision_tower"]["all"]
    if config.model_type == "llava":
        # The published checkpoint's size: total_size of its index over two bytes a weight.
        assert sum(p.numel() for p in model.parameters()) == 7_063_427_072


def test_a_qwen2_vl_processor_loads_without_torchvision_and_saves_in_the_stock_layout(tiny, tmp_path):
    processor = load_processor(str(tiny("qwen2_vl")))
    processor.save_pretrained(tmp_path)
    shutil.copy(tiny("qwen2_vl") / "config.json", tmp_path)
    stored = json.loads((tmp_path / "processor_config.json").read_text())
    assert stored["processor_class"] == "Qwen2VLProcessor"
    assert stored["video_processor"]["video_processor_type"] == "Qwen2VLVideoProcessor"
    again = load_processor(str(tmp_path))
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert again.chat_template == processor.chat_template


def test_an_adapter_folder_names_its_base_and_loads(loaded, family_name, tmp_path):
    from peft import get_peft_model

    it = loaded(family_name)
    model = get_peft_model(it.model, lora_config(it.model, it.family, Lora(r=2)))
    model.peft_config["default"].base_model_name_or_path = it.path
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    model.save_pretrained(tmp_path)
    again = load_checkpoint(str(tmp_path))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        trained, reloaded, base = (
            m(input_ids=ids).logits for m in (model.eval(), again.model.eval(), loaded(family_name).model.eval())
        )
    assert torch.equal(trained, reloaded)
    assert (trained - base).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("path", "pinned"),
    [("theirs/base", "abc"), ("somebody/tuned", None)],
    ids=["the model itself", "another repository"],
)
@pytest.mark.parametrize("as_adapter", [False, True], ids=["model", "base of an adapter"])
def test_a_pinned_revision_is_of_its_own_repository_alone(tmp_path, monkeypatch, path, pinned, as_adapter):
    """Another repository does not have that commit: somebody's checkpoint, or the base that an adapter names."""
    asked = []

    def from_pretrained(path, revision):
        asked.append((path, revision))
        raise OSError("nobody is asked here")

    monkeypatch.setattr(AutoConfig, "from_pretrained", from_pretrained)
    if as_adapter:
        (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": path}))
        (tmp_path / "adapter_model.safetensors").touch()
    settings = ModelSettings(path="theirs/base", revision="abc")
    with pytest.raises(UserError, match="nobody is asked here"):
        load_checkpoint(str(tmp_path) if as_adapter else path, settings)
    assert asked == [(path, pinned)]


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(UserError, match="neither model.path nor model.build is set"):
        load(ModelSettings(name="x"))
    with pytest.raises(UserError, match="model .*/nothing: cannot be loaded"):
        load(ModelSettings(name="x", path=str(tmp_path / "nothing")))
    with pytest.raises(UserError, match=r"model.dtype=int8: expected one of"):
        load(ModelSettings(name="x", path=str(tmp_path), dtype="int8"))
