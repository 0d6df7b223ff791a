"""The tokenizer of an original LLaVA checkpoint, the two tokens that transformers adds to it, and the prompt as LLaVA-1.5 writes it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from transformers import AddedToken, LlamaTokenizer, LlavaProcessor, PreTrainedTokenizerFast

from align.errors import UserError

IMAGE, PAD = "<image>", "<pad>"
PATCH, START, END = "<im_patch>", "<im_start>", "<im_end>"

SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
"""What LLaVA-1.5 was trained and is evaluated with (`vicuna_v1` of its llava/conversation.py); its chat template has it only on request."""


def load_tokenizer(folder: Path, config: dict[str, Any]) -> PreTrainedTokenizerFast:
    """The checkpoint's tokenizer with what the original code adds when it loads it, and `<image>` and `<pad>`. Raises UserError."""
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
        raise UserError(f"{folder}: no tokenizer in it; expected tokenizer.model (sentencepiece) or tokenizer.json")
    if importlib.util.find_spec("sentencepiece") is None:
        raise UserError(f"{folder}: reading tokenizer.model needs sentencepiece: pip install 'vsil-align[convert]'")
    # legacy: a text begins with a space also behind a special token. So do the pieces around an image, which the original reads one
    # by one. The class does not save that setting, the plain one saves the tokenizer as it stands.
    slow = LlamaTokenizer.from_pretrained(folder, legacy=True, add_bos_token=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=slow.backend_tokenizer,
        bos_token=slow.bos_token,
        eos_token=slow.eos_token,
        unk_token=slow.unk_token,
        model_max_length=slow.model_max_length,
    )


def chat_template(config: dict[str, Any]) -> str:
    """LLaVA-1.5's conversation: the image before the text, one space between turns, the end of sequence behind an answer."""
    image = f"{START}{IMAGE}{END}" if config.get("mm_use_im_start_end") else IMAGE
    return (
        "{% for message in messages %}"
        "{% if message.role != 'system' %}{{ message.role | upper + ': ' }}{% endif %}"
        "{% if message.content is string %}{{ message.content }}{% else %}"
        "{% for part in message.content %}{% if part.type == 'image' %}{{ '" + image + "\n' }}{% endif %}{% endfor %}"
        "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
        "{% endif %}"
        "{{ '</s>' if message.role == 'assistant' else ' ' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )


def check_prompt(converted: Path, checkpoint: Path) -> None:
    """Raises UserError unless the written processor reads a prompt with an image as the original code does: its pieces one by one."""
    tokenizer = (processor := LlavaProcessor.from_pretrained(converted)).tokenizer
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}
    prompt = processor.apply_chat_template([turn], add_generation_prompt=True)
    before, after = (tokenizer(piece).input_ids for piece in prompt.split(IMAGE))
    begins = 1 if after[:1] == [tokenizer.bos_token_id] else 0
    wanted = [*before, tokenizer.convert_tokens_to_ids(IMAGE), *after[begins:]]
    if tokenizer(prompt).input_ids != wanted:
        raise UserError(
            f"{checkpoint}: with its tokenizer.json the prompt {prompt!r} is {tokenizer(prompt).input_ids}, where the original code "
            f"reads {wanted}; put that file away, so that the tokenizer is made from tokenizer.model"
        )
