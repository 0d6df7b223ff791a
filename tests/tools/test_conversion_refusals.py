"""Checkpoints that are refused: pickles unless they are trusted, weights that do not fit, other models."""

import json
import os
import re

import pytest
import torch
from safetensors.torch import load_file

from align.cli import main
from align.errors import UserError
from align.tools.convert.llava import convert
from align.tools.convert.weights import read_weights
from tests.support.converted_llava import differences
from tests.support.original_llava import (
    one_file,
    one_pickle,
    pickled_shards,
    shards,
    write_checkpoint,
    write_tower,
)


@pytest.mark.parametrize("files", [one_pickle, pickled_shards], ids=lambda files: files.__name__)
def test_pickles_are_read_on_request_alone(original, tower, tmp_path, files):
    checkpoint = write_checkpoint(original, tmp_path / "original", files=files)
    with pytest.raises(UserError, match="the weights are pickles .*trust_pickle=true"):
        convert(checkpoint, tmp_path / "out", str(tower))
    convert(checkpoint, tmp_path / "out", str(tower), trust_pickle=True)
    assert (tmp_path / "out" / "model.safetensors").is_file()


class Harmful:
    """A pickle that makes a folder when it is read."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_trusted_pickle_runs_no_code_all_the_same(original, tower, tmp_path):
    def harmful(weights, folder):
        torch.save(weights | {"more": Harmful(tmp_path / "made")}, folder / "pytorch_model.bin")

    checkpoint = write_checkpoint(original, tmp_path / "original", files=harmful)
    with pytest.raises(UserError, match=r"pytorch_model.bin: cannot be read as weights"):
        convert(checkpoint, tmp_path / "out", str(tower), trust_pickle=True)
    assert not (tmp_path / "made").exists()


def test_a_pickled_tower_is_refused_too(original, tmp_path):
    clip = write_tower(original, tmp_path / "clip")
    torch.save(load_file(clip / "model.safetensors"), clip / "pytorch_model.bin")
    (clip / "model.safetensors").unlink()
    checkpoint = write_checkpoint(original, tmp_path / "original", with_tower=False)
    with pytest.raises(UserError, match="vision_tower=.*or trust_pickle=true"):
        convert(checkpoint, tmp_path / "out", str(clip))
    convert(checkpoint, tmp_path / "out", str(clip), trust_pickle=True)
    assert max(differences(original, tmp_path / "out")) < 1e-5


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model.image_newline": torch.zeros(64)}, "1 weights are unknown: model.image_newline"),
        (
            {"model.layers.0.self_attn.q_proj.lora_A": torch.zeros(2)},
            r"unknown .*layers.0.self_attn.q_proj.lora_A",
        ),
        ({"model.norm.weight": None}, r"1 weights are missing .*norm.weight"),
        ({"model.mm_projector.2.bias": None}, r"1 weights are missing .*linear_2.bias"),
        ({"model.embed_tokens.weight": None}, "model.embed_tokens.weight is missing"),
        ({"lm_head.weight": torch.zeros(10, 64)}, r"1 weights are of another shape than in config.json .*lm_head"),
        ({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}, "inv_freq does not match config.json"),
    ],
)
def test_weights_that_do_not_fit_are_an_error_that_names_them(original, tower, tmp_path, change, expected):
    def changed(weights, folder):
        one_file({name: value for name, value in (weights | change).items() if value is not None}, folder)

    checkpoint = write_checkpoint(original, tmp_path / "original", files=changed)
    with pytest.raises(UserError, match=expected):
        convert(checkpoint, tmp_path / "out", str(tower))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear', which transformers' LLaVA cannot express"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio is 'anyres'"),
        ({"architectures": ["LlavaMptForCausalLM"]}, "expected LlavaLlamaForCausalLM"),
        (
            {"text_config": {}, "architectures": ["LlavaForConditionalGeneration"]},
            "already in transformers' layout.* model=",
        ),
        ({"intermediate_size": 128}, r"weights are of another shape than in config.json .*gate_proj"),
        ({"unfreeze_mm_vision_tower": True}, "the vision tower was trained .* the checkpoint lacks its weights"),
    ],
)
def test_other_models_are_refused(original, tower, tmp_path, change, expected):
    checkpoint = write_checkpoint(original, tmp_path / "original", False, **change)
    with pytest.raises(UserError, match=expected):
        convert(checkpoint, tmp_path / "out", str(tower))


def test_lora_checkpoints_say_what_to_do(original, tower, tmp_path):
    checkpoint = write_checkpoint(original, tmp_path / "original")
    torch.save({}, checkpoint / "non_lora_trainables.bin")
    with pytest.raises(UserError, match=r"LoRA weights for another model.*merge_lora_weights.py.*then convert"):
        convert(checkpoint, tmp_path / "out", str(tower))


def test_shards_and_index_must_agree(original, tmp_path):
    checkpoint = write_checkpoint(original, tmp_path / "original", files=shards)
    index = checkpoint / "model.safetensors.index.json"
    whole = json.loads(index.read_text())
    for change, expected in [
        (
            {"lm_head.weight": "model-00003-of-00003.safetensors"},
            "missing in the folder: model-00003-of-00003.safetensors",
        ),
        ({"model.gone": "model-00001-of-00002.safetensors"}, "model.gone is named by the index but not in it"),
        ({"lm_head.weight": "../elsewhere"}, "missing in the folder: ../elsewhere"),
    ]:
        index.write_text(json.dumps({"weight_map": whole["weight_map"] | change}))
        with pytest.raises(UserError, match=expected):
            read_weights(checkpoint)
    del whole["weight_map"]["lm_head.weight"]
    index.write_text(json.dumps(whole))
    with pytest.raises(UserError, match="lm_head.weight is in it but not named by the index"):
        read_weights(checkpoint)


def test_what_cannot_be_converted_says_why(original, tower, tmp_path, capsys):
    checkpoint, output = write_checkpoint(original, tmp_path / "original"), f"output_dir={tmp_path / 'out'}"
    for words, expected in [
        ([f"checkpoint={tmp_path / 'nowhere'}", output], "expected the folder of an original LLaVA checkpoint"),
        ([f"checkpoint={checkpoint}"], "output_dir= is missing"),
        ([f"checkpoint={checkpoint}", f"output_dir={tower}"], "exists already. Give another"),
        (
            [f"checkpoint={checkpoint}", output, f"vision_tower={tmp_path / 'no'}"],
            "Give vision_tower=<folder of that CLIP>",
        ),
        ([f"checkpoint={checkpoint}", output, f"vision_tower={checkpoint}"], "is a llava model; expected a CLIP"),
    ]:
        assert main(["convert", *words]) == 2
        assert re.search(expected, capsys.readouterr().err), expected
