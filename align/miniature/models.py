"""The tiny models: the real LLaVA and Qwen2-VL classes and processors in a small size."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
)

from align.miniature.world import vocabulary
from align.models.processors import image_only

SIZE, PATCH = 32, 8

# Like LLaVA-1.5's template: roles as words, image before text, no end-of-sequence token after a
# response.
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ 'user : ' if message.role == 'user' else 'assistant : ' }}{% for part in "
    "message.content %}{% if part.type == 'image' %}{{ '<image> ' }}{% endif %}{% endfor %}{% for part in "
    "message.content %}{% if part.type == 'text' %}{{ part.text + ' ' }}{% endif %}{% endfor %}{% endfor %}{% if "
    "add_generation_prompt %}{{ 'assistant :' }}{% endif %}"
)
# Like Qwen2-VL's template: ChatML, the image between vision markers.
QWEN2_VL_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% for part in message.content %}{% if "
    "part.type == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% else %}{{ part.text }}{% endif %}{% "
    "endfor %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build(model_type: str) -> tuple[Any, Any]:
    """An untrained tiny model and its processor; `model_type` is llava or qwen2_vl."""
    return {"llava": _llava, "qwen2_vl": _qwen2_vl}[model_type]()


def _tokenizer(specials: list[str], **kwargs: Any) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each word; special tokens come first."""
    words = [*specials, "<unk>", *vocabulary(), "user", "assistant", ":"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos := kwargs.get("bos_token"):  # LLaVA's tokenizer adds it, Qwen2-VL's does not
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, words.index(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", **kwargs)


def _text_settings(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 128,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": False,
    }


def _llava() -> tuple[Any, Any]:
    tokenizer = _tokenizer(
        ["<pad>", "<s>", "</s>", "<image>"],
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=32,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**_text_settings(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    return LlavaForConditionalGeneration(config), processor


def _qwen2_vl() -> tuple[Any, Any]:
    markers = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = _tokenizer(["<pad>", *markers], eos_token="<|im_end|>", additional_special_tokens=markers)
    ids = dict(zip(markers, tokenizer.convert_tokens_to_ids(markers), strict=True))
    text = _text_settings(tokenizer)
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    config = Qwen2VLConfig(
        vision_config={
            "depth": 3,
            "embed_dim": 64,
            "hidden_size": text["hidden_size"],
            "num_heads": 4,
            "mlp_ratio": 2,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        text_config=text,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH, merge_size=2, temporal_patch_size=2, min_pixels=SIZE * SIZE, max_pixels=SIZE * SIZE
    )
    processor = image_only(Qwen2VLProcessor)(images, tokenizer, None, chat_template=QWEN2_VL_TEMPLATE)
    return Qwen2VLForConditionalGeneration(config), processor
