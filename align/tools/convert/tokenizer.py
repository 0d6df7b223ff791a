"""Tokenizer of an original LLaVA checkpoint, with two added tokens and LLaVA-1.5's prompt."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from transformers import AddedToken, LlamaTokenizer, LlavaProcessor, PreTrainedTokenizerFast

from align.errors import UserError

IMAGE, PAD = "<image>", "<pad>"
PATCH, START, END = "<im_patch>", "<im_start>", "<im_end>"

SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
"""System prompt of LLaVA-1.5 in training and evaluation (`vicuna_v1` in llava/conversation.py).

The chat template adds it only when it is set.
"""


def load_tokenizer(folder: Path, config: dict[str, Any]) -> PreTrainedTokenizerFast:
    """The checkpoint's tokenizer with the original code's added tokens, `<image>` and `<pad>`.

    Raises UserError.
    """
    tokenizer = _stored(folder)
    added = [PATCH] if config.get("mm_use_im_patch_token", True) else []
    added += [START, END] if config.get("mm_use_im_start_end") else []
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in [*added, IMAGE]], True)
    tokenizer.add_special_tokens({"pad_token": AddedToken(PAD, special=True, normalized=False)})
    tokenizer.padding_side = "left"
    return tokenizer


def _stored(folder: Path) -> PreTrainedTokenizerFast:
    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    if not (folder / "tokenizer.model").is_file():
        raise UserError(f"{folder}: found no tokenizer; expected tokenizer.model (sentencepiece) or tokenizer.json")
    if importlib.util.find_spec("sentencepiece") is None:
        raise UserError(f"{folder}: tokenizer.model needs sentencepiece. Install it: pip install 'vsil-align[convert]'")
    # legacy: text after a special token begins with a space too, like the pieces around an image in
    # the original code. LlamaTokenizer does not save that setting; PreTrainedTokenizerFast saves
    # the result.
    slow = LlamaTokenizer.from_pretrained(folder, legacy=True, add_bos_token=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=slow.backend_tokenizer,
        bos_token=slow.bos_token,
        eos_token=slow.eos_token,
        unk_token=slow.unk_token,
        model_max_length=slow.model_max_length,
    )


def chat_template(config: dict[str, Any]) -> str:
    """LLaVA-1.5's chat template: image before text, a space between turns, </s> after responses."""
    image = f"{START}{IMAGE}{END}" if config.get("mm_use_im_start_end") else IMAGE
    return (
        "{% for message in messages %}{% if message.role != 'system' %}{{ message.role | upper + ': ' }}{% endif %}{% "
        "if message.content is string %}{{ message.content }}{% else %}"
        "{% for part in message.content %}{% if part.type == 'image' %}{{ '" + image + "\n' }}{% endif %}{% endfor %}"
        "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif "
        "%}{{ '</s>' if message.role == 'assistant' else ' ' }}{% endfor %}{% if add_generation_prompt %}{{ "
        "'ASSISTANT:' }}{% endif %}"
    )


def check_prompt(converted: Path, checkpoint: Path) -> None:
    """Raises UserError unless the processor tokenizes a prompt like the original code."""
    tokenizer = (processor := LlavaProcessor.from_pretrained(converted)).tokenizer
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}
    prompt = processor.apply_chat_template([turn], add_generation_prompt=True)
    before, after = (tokenizer(piece).input_ids for piece in prompt.split(IMAGE))
    begins = 1 if after[:1] == [tokenizer.bos_token_id] else 0
    wanted = [*before, tokenizer.convert_tokens_to_ids(IMAGE), *after[begins:]]
    if tokenizer(prompt).input_ids != wanted:
        raise UserError(
            f"{checkpoint}: with its tokenizer.json the prompt {prompt!r} becomes {tokenizer(prompt).input_ids}, but "
            f"the original code gives {wanted}. Move that file away, so that the tokenizer is made from "
            "tokenizer.model."
        )
