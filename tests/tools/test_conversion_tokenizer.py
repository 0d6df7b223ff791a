"""The tokenizer and the chat template of a converted LLaVA: a conversation reads as the original writes it."""

import json

import pytest
from tokenizers import Tokenizer
from transformers import (
    AutoProcessor,
    AutoTokenizer,
)

from align.errors import UserError
from align.tools.convert.llava import convert
from align.tools.convert.tokenizer import SYSTEM_PROMPT, chat_template, load_tokenizer
from tests.support.converted_llava import TURN
from tests.support.original_llava import (
    SENTENCES,
    write_checkpoint,
)


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
    """LLaMA's newer setting drops the space behind a special token: the text behind an image would
    begin with another token.
    """
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
