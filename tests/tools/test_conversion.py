"""Original LLaVA checkpoints: converted they answer as they did, and no weight of theirs is lost or made up."""

import json
import os
import re
import shlex

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
)

from align.cli import main
from align.config.values import parse_value
from align.errors import UserError
from align.models.loading import load
from align.models.merging import probe
from align.settings import ModelSettings
from align.tools.convert.llava import convert, renamed
from align.tools.convert.tokenizer import SYSTEM_PROMPT, chat_template, load_tokenizer
from align.tools.convert.weights import read_weights
from tests.support.original_llava import (
    SENTENCES,
    Original,
    one_file,
    one_pickle,
    original_llava,
    pickled_shards,
    shards,
    write_checkpoint,
    write_tower,
)

IMAGE = Image.radial_gradient("L").resize((48, 40)).convert("RGB")
TURN = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]


@pytest.fixture(scope="module")
def original():
    return original_llava()


@pytest.fixture
def tower(original, tmp_path):
    return write_tower(original, tmp_path / "clip")


def differences(original, folder):
    """The largest differences of a logit between the original and the converted model, on a text and on an image."""
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    prompt = processor.apply_chat_template(TURN, add_generation_prompt=True)
    assert prompt == "USER: <image>\nWhat is this? ASSISTANT:"
    found = []
    for text, image in (("USER: the cat sat ASSISTANT:", None), (prompt, IMAGE)):
        inputs = processor(text=[text], images=[image] if image else None, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        wanted = original.logits(text, image)
        assert logits.shape[0] == wanted.shape[0]
        found.append((logits[:, : wanted.shape[1]] - wanted).abs().max().item())
    return found


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


def test_image_markers_are_added_and_written(original, tower, tmp_path):
    settings = {"mm_use_im_start_end": True, "mm_use_im_patch_token": True}
    done = convert(write_checkpoint(original, tmp_path / "original", **settings), tmp_path / "out", str(tower))
    assert done.new_tokens == ["<im_patch>", "<im_start>", "<im_end>", "<image>", "<pad>"]
    prompt = AutoProcessor.from_pretrained(tmp_path / "out").apply_chat_template(TURN, add_generation_prompt=True)
    assert prompt == "USER: <im_start><image><im_end>\nWhat is this? ASSISTANT:"


def test_a_conversation_reads_as_llava_writes_it(original, tower, tmp_path):
    convert(write_checkpoint(original, tmp_path / "original"), tmp_path / "out", str(tower))
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    turns = [{"role": "system", "content": [{"type": "text", "text": SYSTEM_PROMPT}]}, *TURN]
    turns += [{"role": "assistant", "content": "a ball"}, {"role": "user", "content": "Sure?"}]
    assert processor.apply_chat_template(turns, add_generation_prompt=True) == (
        f"{SYSTEM_PROMPT} USER: <image>\nWhat is this? ASSISTANT: a ball</s>USER: Sure? ASSISTANT:"
    )


def test_a_tokenizer_that_reads_images_otherwise_is_refused(original, tower, tmp_path):
    """LLaMA's newer setting drops the space behind a special token: the text behind an image would begin with another token."""
    checkpoint = write_checkpoint(original, tmp_path / "original")
    file = checkpoint / "tokenizer.json"
    settings = json.loads(file.read_text())
    settings["normalizer"] = None
    settings["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    file.write_text(json.dumps(settings))
    with pytest.raises(UserError, match="with its tokenizer.json the prompt .* tokenizer.model"):
        convert(checkpoint, tmp_path / "out", str(tower))
    assert not (tmp_path / "out").exists()


def test_the_real_tokenizer_gets_the_ids_of_the_published_conversion(shared, tmp_path):
    """LLaVA-1.5's own vocabulary of 32,000, without the two tokens of the published conversion, and then with ours."""
    published = shared / "hub" / "llava-1.5-7b-hf"
    settings = json.loads((published / "tokenizer.json").read_text(encoding="utf-8"))
    settings["added_tokens"] = [token for token in settings["added_tokens"] if token["id"] < 32000]
    (tmp_path / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size() == 32000
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}')
    tokenizer = load_tokenizer(tmp_path, {"mm_use_im_patch_token": False})
    real = AutoProcessor.from_pretrained(published)
    assert tokenizer.convert_tokens_to_ids(["<image>", "<pad>"]) == [32000, 32001]
    assert len(tokenizer) == len(real.tokenizer) == 32002
    ours = tokenizer.apply_chat_template(
        TURN, chat_template=chat_template({}), add_generation_prompt=True, tokenize=False
    )
    assert ours == real.apply_chat_template(TURN, add_generation_prompt=True)
    for text in (ours, "Grüße, 世界!", f"{SYSTEM_PROMPT} {ours}"):
        assert tokenizer(text).input_ids == real.tokenizer(text).input_ids


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


def test_sentencepiece_models_are_read_as_the_original_reads_them(tmp_path):
    """Against sentencepiece itself, piece by piece around the image, also once the tokenizer was saved and loaded."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="the extra `convert`")
    (tmp_path / "corpus.txt").write_text("\n".join(SENTENCES * 50))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "pad_token": "<unk>", "model_max_length": 2048}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    load_tokenizer(tmp_path, {"mm_use_im_patch_token": False}).save_pretrained(tmp_path / "saved")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert tokenizer.convert_tokens_to_ids(["<image>", "<pad>"]) == [340, 341]
    found = tokenizer("USER: <image>\nWhat is this? ASSISTANT:").input_ids
    assert found == [1, *pieces.encode("USER: "), 340, *pieces.encode("\nWhat is this? ASSISTANT:")]
