"""Tiny models of the families that people use now: real classes and processors, random weights.

Their templates write the same as the published ones, which trl ships for some of them
(tests/batches/test_published_templates.py reads those).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as t

from align.models.processors import image_only
from tests.support import other_models
from tests.support.other_models import tiny_tokenizer

TEXT = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
LAYERS = {"num_hidden_layers": 2}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TILE, PATCH = 16, 8
PINPOINTS = [[16, 32], [32, 16], [32, 32]]
"""Height and width of the tilings of an image."""

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% for part in message.content %}"
    "{% if part.type == 'image' %}{{ 'IMAGE' }}{% else %}{{ part.text }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The published template writes a space and a line break before a response, and only a line break in the prompt.
ONEVISION = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + ' ' }}"
    "{% for part in message.content if part.type == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ '\n' + part.text }}{% endfor %}{{ '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAVA_NEXT = (
    "{% for message in messages %}{% if message.role == 'user' %}{{ '[INST] ' }}"
    "{% for part in message.content if part.type == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}{{ ' [/INST]' }}"
    "{% else %}{{ ' ' + message.content[0].text + '</s> ' }}{% endif %}{% endfor %}"
)
SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{ message.role | capitalize }}"
    "{% if message.content[0].type == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message.content %}{% if part.type == 'image' %}{{ '<image>' }}{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
CHAT_MARKS = ["<|im_start|>", "<|im_end|>"]
VISION_MARKS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def build(name: str) -> tuple[Any, Any]:
    """The tiny model of a family and its processor; skips a test where transformers needs torchvision for it."""
    try:
        return (globals().get(name) or getattr(other_models, name))()
    except ImportError as error:
        pytest.skip(f"transformers {t.__version__}: {str(error).strip().splitlines()[0]}")


def qwen2_5_vl() -> tuple[Any, Any]:
    """Qwen2.5-VL with one layer of window attention and one of full attention."""
    tokenizer, ids = _qwen_tokenizer()
    torch.manual_seed(0)
    config = t.Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": TEXT["hidden_size"],
            "patch_size": PATCH,
            "window_size": 4 * PATCH,
            "fullatt_block_indexes": [1],
        },
        text_config=_text(tokenizer) | {"rope_parameters": _mrope([2, 3, 3])},
        **ids,
    )
    processor = image_only(t.Qwen2_5_VLProcessor)(_qwen_images(), tokenizer, None, chat_template=_qwen_template())
    return t.Qwen2_5_VLForConditionalGeneration(config), processor


def qwen3_vl() -> tuple[Any, Any]:
    """Qwen3-VL whose first vision layer also reaches the language model."""
    tokenizer, ids = _qwen_tokenizer()
    torch.manual_seed(0)
    config = t.Qwen3VLConfig(vision_config=_qwen3_vision(), text_config=_qwen3_text(tokenizer), **ids)
    return t.Qwen3VLForConditionalGeneration(config), _qwen3_processor(tokenizer)


def qwen3_vl_moe() -> tuple[Any, Any]:
    """Qwen3-VL with four experts, two of them for each token."""
    tokenizer, ids = _qwen_tokenizer()
    torch.manual_seed(0)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    config = t.Qwen3VLMoeConfig(vision_config=_qwen3_vision(), text_config=_qwen3_text(tokenizer) | experts, **ids)
    return t.Qwen3VLMoeForConditionalGeneration(config), _qwen3_processor(tokenizer)


def llava_next() -> tuple[Any, Any]:
    """LLaVA-NeXT with CLIP and up to four tiles."""
    tokenizer = tiny_tokenizer(["<pad>", "<s>", "</s>", "<image>"], "<s>", "</s>", {"image_token": "<image>"})
    torch.manual_seed(0)
    config = t.LlavaNextConfig(
        vision_config=t.CLIPVisionConfig(**VISION, image_size=TILE, patch_size=PATCH),
        text_config=t.LlamaConfig(**_text(tokenizer)),
        image_grid_pinpoints=PINPOINTS,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    size = {"height": TILE, "width": TILE}
    images = t.LlavaNextImageProcessorPil(size={"shortest_edge": TILE}, crop_size=size, image_grid_pinpoints=PINPOINTS)
    processor = t.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_NEXT,
    )
    return t.LlavaNextForConditionalGeneration(config), processor


def llava_onevision() -> tuple[Any, Any]:
    """LLaVA-OneVision with SigLIP and up to four tiles."""
    named = {"image_token": "<image>", "video_token": "<video>"}
    tokenizer = tiny_tokenizer(["<pad>", *CHAT_MARKS, *named.values()], None, "<|im_end|>", named)
    torch.manual_seed(0)
    config = t.LlavaOnevisionConfig(
        vision_config=t.SiglipVisionConfig(**VISION, image_size=TILE, patch_size=PATCH, vision_use_head=False),
        text_config=t.Qwen2Config(**_text(tokenizer)),
        image_grid_pinpoints=PINPOINTS,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
    )
    images = t.LlavaOnevisionImageProcessorPil(size={"height": TILE, "width": TILE}, image_grid_pinpoints=PINPOINTS)
    processor = image_only(t.LlavaOnevisionProcessor)(
        images,
        tokenizer,
        None,
        num_image_tokens=(TILE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=ONEVISION,
    )
    return t.LlavaOnevisionForConditionalGeneration(config), processor


def internvl() -> tuple[Any, Any]:
    """InternVL with up to two tiles and a small copy of the image."""
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    named["video_token"] = "<video>"
    tokenizer = tiny_tokenizer(["<pad>", *CHAT_MARKS, *named.values()], None, "<|im_end|>", named)
    torch.manual_seed(0)
    config = t.InternVLConfig(
        vision_config=t.InternVLVisionConfig(**VISION, image_size=[TILE, TILE], patch_size=[PATCH // 2] * 2),
        text_config=t.Qwen2Config(**_text(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    images = t.GotOcr2ImageProcessorPil(
        size={"height": TILE, "width": TILE}, crop_to_patches=True, min_patches=1, max_patches=2
    )
    processor = image_only(t.InternVLProcessor)(
        images, tokenizer, None, image_seq_length=4, chat_template=CHATML.replace("IMAGE", "<IMG_CONTEXT>\n")
    )
    return t.InternVLForConditionalGeneration(config), processor


def idefics3() -> tuple[Any, Any]:
    """Idefics3 with tiles of an image and a small copy of it."""
    return _idefics("Idefics3", t.Idefics3Processor)


def smolvlm() -> tuple[Any, Any]:
    """SmolVLM: the same with its own classes."""
    return _idefics("SmolVLM", image_only(t.SmolVLMProcessor), None)


def _idefics(kind: str, processor: Any, *videos: None) -> tuple[Any, Any]:
    """A model of one of two kinds with the same parts; only one of their processors has a part for videos."""
    tokenizer, text, vision, sizes = _idefics_parts()
    torch.manual_seed(0)
    parts = {"vision_config": vision, "text_config": t.LlamaConfig(**text)} | _idefics_ids(tokenizer)
    config = getattr(t, f"{kind}Config")(**parts)
    images = getattr(t, f"{kind}ImageProcessorPil")(**sizes)
    whole = processor(images, tokenizer, *videos, image_seq_len=1, chat_template=SMOLVLM)
    return getattr(t, f"{kind}ForConditionalGeneration")(config), whole


def _text(tokenizer: Any) -> dict[str, Any]:
    return TEXT | LAYERS | _ids(tokenizer) | {"max_position_embeddings": 512, "tie_word_embeddings": False}


def _ids(tokenizer: Any) -> dict[str, Any]:
    names = ("pad_token_id", "bos_token_id", "eos_token_id")
    return {"vocab_size": len(tokenizer)} | {name: getattr(tokenizer, name) for name in names}


def _mrope(sections: list[int]) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}


def _qwen_template() -> str:
    return CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")


def _qwen_tokenizer() -> tuple[Any, dict[str, int]]:
    tokenizer = tiny_tokenizer(["<pad>", *CHAT_MARKS, *VISION_MARKS], None, "<|im_end|>", {})
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return tokenizer, dict(zip(names, tokenizer.convert_tokens_to_ids(VISION_MARKS), strict=True))


def _qwen_images() -> Any:
    size = (4 * PATCH) ** 2
    return t.Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=2, min_pixels=size // 4, max_pixels=2 * size)


def _qwen3_vision() -> dict[str, Any]:
    return {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": TEXT["hidden_size"],
        "patch_size": PATCH,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }


def _qwen3_text(tokenizer: Any) -> dict[str, Any]:
    return _text(tokenizer) | {"head_dim": 16, "rope_parameters": _mrope([2, 3, 3])}


def _qwen3_processor(tokenizer: Any) -> Any:
    return image_only(t.Qwen3VLProcessor)(_qwen_images(), tokenizer, None, chat_template=_qwen_template())


def _idefics_parts() -> tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]]:
    places = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    marks = ["<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>", "<global-img>", *places]
    tokenizer = tiny_tokenizer(["<pad>", *marks], None, "<end_of_utterance>", {})
    vision = VISION | {"image_size": TILE, "patch_size": PATCH}
    sizes = {"size": {"longest_edge": 2 * TILE}, "max_image_size": {"longest_edge": TILE}, "do_image_splitting": True}
    return tokenizer, _text(tokenizer), vision, sizes


def _idefics_ids(tokenizer: Any) -> dict[str, Any]:
    image = tokenizer.convert_tokens_to_ids("<image>")
    return {"image_token_id": image, "scale_factor": 2, "pad_token_id": tokenizer.pad_token_id}
