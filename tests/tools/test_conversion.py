"""Original LLaVA checkpoints: converted they answer as they did, and no weight of theirs is lost or made up."""

import json
import shlex

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
)

from align.cli import main
from align.config.values import parse_value
from align.models.loading import load
from align.models.merging import probe
from align.settings import ModelSettings
from align.tools.convert.llava import convert, renamed
from align.tools.convert.tokenizer import SYSTEM_PROMPT
from tests.support.converted_llava import differences
from tests.support.original_llava import (
    Original,
    one_file,
    original_llava,
    pickled_shards,
    shards,
    write_checkpoint,
)


@pytest.mark.parametrize("files", [one_file, shards, pickled_shards], ids=lambda files: files.__name__)
@pytest.mark.parametrize("with_tower", [True, False], ids=["own tower", "tower elsewhere"])
def test_the_converted_model_computes_what_the_original_does(original, tower, tmp_path, files, with_tower):
    checkpoint = write_checkpoint(original, tmp_path / "original", with_tower, files)
    done = convert(checkpoint, tmp_path / "out", str(tower), trust_pickle=files is pickled_shards)
    assert max(differences(original, tmp_path / "out")) < 1e-5
    assert done.vision_tower == (None if with_tower else str(tower))
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert sum(done.tensors.values()) == len(stored) == len(original.weights(True))
    assert not list((tmp_path / "out").glob("*.bin"))


def test_the_comparison_sees_a_projector_in_the_wrong_order(original, tower, tmp_path):
    """That 1e-5 is no accident: the same check on a model with one bias changed."""
    wrong = original_llava()
    wrong.projector["2.bias"] = wrong.projector["2.bias"].flip(0)
    convert(write_checkpoint(wrong, tmp_path / "original"), tmp_path / "out", str(tower))
    text, image = differences(original, tmp_path / "out")
    assert text < 1e-5
    assert image > 1e-2


def test_new_rows_are_the_mean_and_ids_follow_the_vocabulary(original, tower, tmp_path):
    checkpoint = write_checkpoint(original, tmp_path / "original")
    done = convert(checkpoint, tmp_path / "out", str(tower))
    before, after = done.vocabulary
    assert before == len(original.tokenizer)
    assert after % 64 == 0
    assert before + 2 <= after < before + 66
    assert done.new_tokens == ["<image>", "<pad>"]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["image_token_index"] == before
    assert config["pad_token_id"] == before + 1
    assert (config["text_config"]["vocab_size"], config["dtype"]) == (after, "float32")
    assert (config["vision_feature_layer"], config["vision_feature_select_strategy"]) == (-2, "default")
    rows = load_file(tmp_path / "out" / "model.safetensors")["language_model.lm_head.weight"]
    assert torch.equal(rows[:before], original.language_model.lm_head.weight)
    assert torch.allclose(rows[before:], rows[:before].mean(0).expand(after - before, -1), atol=1e-7)


def test_half_precision_stays_and_the_tower_elsewhere_follows_it(original, tower, tmp_path):
    def half(weights, folder):
        one_file({name: value.half() for name, value in weights.items()}, folder)

    convert(write_checkpoint(original, tmp_path / "original", False, half), tmp_path / "out", str(tower))
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert load(ModelSettings(path=str(tmp_path / "out"))).model.dtype == torch.float16


def test_it_is_evaluated_and_trained_like_any_llava(original, tower, tmp_path):
    convert(write_checkpoint(original, tmp_path / "original"), tmp_path / "out", str(tower))
    it = load(ModelSettings(path=str(tmp_path / "out")))
    assert probe(it).isfinite().all()
    assert it.family.end_of_turn(it.processor) == "</s>"


def test_the_command_says_what_it_did_and_how_to_evaluate(original, tower, tmp_path, capsys):
    checkpoint, output = write_checkpoint(original, tmp_path / "original"), tmp_path / "out"
    words = [f"checkpoint={checkpoint}", f"output_dir={output}", f"vision_tower={tower}"]
    assert main(["convert", *words]) == 0
    shown = capsys.readouterr().out
    assert "language_model 30, multi_modal_projector 4, vision_tower 55. Vision tower: from the checkpoint" in shown
    assert "<image>, <pad>, are the mean of the others" in shown
    assert "The original pads images to a square." in shown
    command = shlex.split(shown.splitlines()[-1])
    assert command[:4] == ["align", "eval", f"model={output}", "model.image_aspect_ratio=pad"]
    key, _, value = command[4].partition("=")
    assert (key, parse_value(value)) == ("model.system_prompt", SYSTEM_PROMPT)


def test_a_square_cutter_is_not_told_to_pad(original, tower, tmp_path, capsys):
    checkpoint = write_checkpoint(original, tmp_path / "original", image_aspect_ratio="square")
    assert main(["convert", f"checkpoint={checkpoint}", f"output_dir={tmp_path / 'out'}", f"vision_tower={tower}"]) == 0
    shown = capsys.readouterr().out
    assert "The original crops images to a square." in shown
    assert "image_aspect_ratio" not in shown


def test_what_older_versions_saved_and_newer_ones_compute_is_counted(original, tower, tmp_path):
    def older(weights, folder):
        frequencies = 1 / 10000 ** (torch.arange(0, 16, 2) / 16)
        more = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": frequencies.half() for i in range(3)}
        more["model.vision_tower.vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
        one_file(weights | more, folder)

    done = convert(write_checkpoint(original, tmp_path / "original", files=older), tmp_path / "out", str(tower))
    assert done.computed == 4
    assert sum(done.tensors.values()) == len(original.weights(True))
    assert max(differences(original, tmp_path / "out")) < 1e-5


def test_names_are_those_of_the_published_conversion(shared, tmp_path):
    """All of LLaVA-1.5-7B's, without its weights: what the original has renamed, against the published index."""
    published = shared / "hub" / "llava-1.5-7b-hf"
    vision = LlavaConfig.from_pretrained(published).vision_config
    with torch.device("meta"):
        language = LlamaForCausalLM(LlamaConfig(num_hidden_layers=32))
        whole = Original(
            language,
            {f"{i}.{kind}": torch.empty(1) for i in (0, 2) for kind in ("weight", "bias")},
            CLIPVisionModel(vision),
            None,
            None,
        )
    names = json.loads((published / "model.safetensors.index.json").read_text())["weight_map"]
    assert renamed(whole.weights(True), tmp_path).keys() == names.keys()
