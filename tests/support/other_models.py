"""Tiny models of families beyond the miniature's: real classes and processors, random weights."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    LlamaConfig,
    LlavaProcessor,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessorPil,
    MllamaProcessor,
    PreTrainedTokenizerFast,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from align.miniature.models import LLAVA_TEMPLATE
from align.miniature.world import vocabulary

TEXT = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
# Gemma's turns: the model is called "model", and a turn is trimmed.
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}{{ '<start_of_image>' }}{% else %}{{ part.text | trim }}{% endif %}"
    "{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|> ' + message.role + ' <|end_header_id|> ' }}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}{{ '<|image|>' }}{% else %}{{ ' ' + part.text }}{% endif %}"
    "{% endfor %}{{ ' <|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|> assistant <|end_header_id|> ' }}{% endif %}"
)


def gemma3() -> tuple[Any, Any]:
    """A Gemma 3: 16 image tokens between two others, sliding and full attention in turns."""
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    turns = ["<start_of_turn>", "<end_of_turn>"]
    tokenizer = tiny_tokenizer(["<pad>", "<bos>", "<eos>", *turns, *named.values()], "<bos>", "<eos>", named)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in named.items()}
    torch.manual_seed(0)
    config = Gemma3Config(
        text_config=TEXT
        | _ids(tokenizer)
        | {
            "num_hidden_layers": 2,
            "sliding_window": 32,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 16,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 4,
        },
        mm_tokens_per_image=16,
        image_token_index=ids["image_token"],
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        chat_template=GEMMA_TEMPLATE,
        image_seq_length=16,
    )
    return Gemma3ForConditionalGeneration(config), processor


def mllama() -> tuple[Any, Any]:
    """A Llama 3.2 Vision: images in tiles, read through cross-attention."""
    markers = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|image|>"]
    tokenizer = tiny_tokenizer(["<pad>", "<|begin_of_text|>", *markers], "<|begin_of_text|>", "<|eot_id|>", {})
    torch.manual_seed(0)
    text = {key: value for key, value in TEXT.items() if key != "head_dim"} | _ids(tokenizer)
    config = MllamaConfig(
        text_config=text
        | {
            "num_hidden_layers": 3,
            "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
            "max_num_tiles": 2,
            "vision_output_dim": 64,
            "intermediate_layers_indices": [0],
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )
    images = MllamaImageProcessorPil(size={"height": 16, "width": 16}, max_image_tiles=2)
    processor = MllamaProcessor(image_processor=images, tokenizer=tokenizer, chat_template=LLAMA_TEMPLATE)
    return MllamaForConditionalGeneration(config), processor


def vip_llava() -> tuple[Any, Any]:
    """A ViP-LLaVA, of no known family."""
    tokenizer = tiny_tokenizer(["<pad>", "<s>", "</s>", "<image>"], "<s>", "</s>", {"image_token": "<image>"})
    torch.manual_seed(0)
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = VipLlavaConfig(
        vision_config=CLIPVisionConfig(**vision, image_size=16, patch_size=8),
        text_config=LlamaConfig(**TEXT, **_ids(tokenizer), num_hidden_layers=2),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layers=[-1, -2],
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    return VipLlavaForConditionalGeneration(config), processor


def tiny_tokenizer(specials: list[str], bos: str | None, eos: str, named: dict[str, str]) -> PreTrainedTokenizerFast:
    """One token for each word; special tokens come first, and those with names are attributes."""
    words = [
        *specials,
        "<unk>",
        *vocabulary(),
        "user",
        "assistant",
        "model",
        "User:",
        "Assistant:",
        "[INST]",
        "[/INST]",
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos is not None:  # As the real ones do: their templates write it too, and it must stand there once.
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, words.index(bos))]
        )
    others = [token for token in specials if token not in (bos, eos, "<pad>", *named.values())]
    named = named | {f"marker_{i}": token for i, token in enumerate(others)}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token=bos,
        eos_token=eos,
        extra_special_tokens=named,
    )


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
