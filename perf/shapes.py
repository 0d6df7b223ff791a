"""Models and rows for measuring training.

The models are a LLaVA of about 80 million parameters with 576 image tokens, and a Qwen2-VL of 51.6
million with the published vocabulary and processor and 144 image tokens. The rows have the lengths
of published datasets. Words are drawn at random from the miniature's, about one token each: their
content does not change the cost.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText

from align.miniature.models import build
from align.miniature.world import vocabulary

SIZE, PATCH = 336, 14
VOCABULARY = 32000


@dataclass(frozen=True)
class Shape:
    """Rows of one kind: ranges of prompt and answer tokens, and the share of rows with an image."""

    method: str
    prompt: tuple[int, int]
    answer: tuple[int, int]
    with_image: float
    batch: int
    """Rows, or pairs, of an optimizer step: one forward pass."""
    model: str = "llava"
    """llava | qwen2_vl | llava_1_5: the last two with the published vocabulary and processor"""
    settings_of: str | None = None
    """Another shape whose fastest settings are used, instead of a search for this shape."""


SHAPES = {
    "dpo_images": Shape("dpo", (50, 50), (150, 150), 1.0, 2),  # SPA-VL
    "sft_images": Shape("sft", (40, 40), (60, 60), 1.0, 4),  # VLGuard
    "sft_text": Shape("sft", (20, 80), (50, 300), 0.0, 8),  # PKU-SafeRLHF: lengths differ
    "sft_mixed": Shape("sft", (50, 50), (150, 150), 0.3, 8),  # 30 rows with an image to 70 without
    "qwen2_vl_sft_mixed": Shape("sft", (50, 50), (150, 150), 0.3, 8, "qwen2_vl", "sft_mixed"),
    "qwen2_vl_dpo_images": Shape("dpo", (50, 50), (150, 150), 1.0, 2, "qwen2_vl", "dpo_images"),
    "llava_1_5_sft_mixed": Shape("sft", (50, 50), (150, 150), 0.3, 8, "llava_1_5", "sft_mixed"),
    "llava_1_5_dpo_images": Shape("dpo", (50, 50), (150, 150), 1.0, 2, "llava_1_5", "dpo_images"),
}


def at_hand() -> list[str]:
    """The shapes that can be measured here: ALIGN_SHARED must have the published processor."""
    return [name for name, shape in SHAPES.items() if shape.model == "llava" or "ALIGN_SHARED" in os.environ]


def write_model(folder: Path, name: str = "llava") -> None:
    """The model of a shape, with its processor."""
    {"llava": _write_llava, "qwen2_vl": _write_qwen2_vl, "llava_1_5": _write_llava_1_5}[name](folder)


def _write_llava(folder: Path) -> None:
    """The miniature's LLaVA, larger.

    It has LLaVA-1.5's image size, a vocabulary of 32,000, and twelve layers of width 512.
    """
    torch.manual_seed(0)
    model, processor = build("llava")
    config, text, vision = model.config, model.config.text_config, model.config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.vocab_size = 512, 1408, 12, VOCABULARY
    text.num_attention_heads = text.num_key_value_heads = 8
    text.head_dim, text.max_position_embeddings = 64, 16384
    vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers, vision.num_attention_heads = 256, 1024, 6, 4
    vision.image_size, vision.patch_size = SIZE, PATCH
    config.vision_feature_layer = -2
    processor.image_processor.size = {"shortest_edge": SIZE}
    processor.image_processor.crop_size = {"height": SIZE, "width": SIZE}
    processor.patch_size = PATCH
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def _published(name: str) -> tuple[Path, Any]:
    """(The folder of a published processor, its model's configuration).

    Fixes the seed of the weights that are drawn next.
    """
    folder = Path(os.environ["ALIGN_SHARED"], "hub", name)
    torch.manual_seed(0)
    return folder, AutoConfig.from_pretrained(folder)


def _write_qwen2_vl(folder: Path) -> None:
    """Qwen2-VL's configuration and processor.

    It has a vocabulary of 152,064 with a tied head, eight layers of width 256, and a tower of six
    layers.
    """
    published, config = _published("qwen2-vl-7b-instruct")
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 256, 704, 8
    text.num_attention_heads = text.num_key_value_heads = 4
    text.layer_types = ["full_attention"] * text.num_hidden_layers
    text.rope_parameters = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    config.tie_word_embeddings = text.tie_word_embeddings = True
    vision.embed_dim, vision.depth, vision.num_heads, vision.hidden_size = 256, 6, 4, 256
    text.dtype = vision.dtype = config.dtype = "float32"
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    for file in ("chat_template.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(published / file, folder)


def _write_llava_1_5(folder: Path) -> None:
    """LLaVA-1.5's configuration and processor.

    It has a vocabulary of 32,064, 576 image tokens, eight layers of width 384, and a tower of six
    layers.
    """
    published, config = _published("llava-1.5-7b-hf")
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 384, 1024, 8
    text.num_attention_heads = text.num_key_value_heads = 6
    text.head_dim = 64
    vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers, vision.num_attention_heads = 256, 1024, 6, 4
    text.dtype = vision.dtype = config.dtype = "float32"
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    for file in published.iterdir():
        if file.name not in ("config.json", "model.safetensors.index.json"):
            shutil.copy(file, folder)


def write_rows(folder: Path, shape: Shape, count: int) -> Path:
    """`count` rows of a shape as a local dataset, each with a different image."""
    draw = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    words = sorted(vocabulary())
    with_images = [draw.random() < shape.with_image for _ in range(count)]
    lines = []
    for i, has_image in enumerate(with_images):
        prompt, *answers = (
            " ".join(draw.choices(words, k=draw.randint(*size))) for size in (shape.prompt, shape.answer, shape.answer)
        )
        row = {"id": str(i), "role": "benign", "prompt": prompt}
        row |= (
            dict(zip(("chosen", "rejected"), answers, strict=True))
            if shape.method == "dpo"
            else {"response": answers[0]}
        )
        if has_image:
            row["image"] = _write_image(folder, i, shape.model)
        lines.append(json.dumps(row) + "\n")
    file = folder / "rows.jsonl"
    file.write_text("".join(lines))
    return file


def _write_image(folder: Path, number: int, model: str) -> str:
    """Write an image file, and return its name.

    LLaVA gets noise as PNG, Qwen2-VL large squares as a small JPEG.
    """
    noise = random.Random(number)
    if model == "llava":
        Image.frombytes("RGB", (SIZE, SIZE), noise.randbytes(3 * SIZE * SIZE)).save(folder / f"{number}.png")
        return f"{number}.png"
    Image.frombytes("RGB", (12, 12), noise.randbytes(3 * 12 * 12)).resize((SIZE, SIZE)).save(folder / f"{number}.jpg")
    return f"{number}.jpg"
