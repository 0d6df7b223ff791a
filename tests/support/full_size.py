"""The published configurations of the models of full size, without weights: what `align plan` and
the LoRA patterns are tried on.

python tests/support/full_size.py out=align/planning/configs

writes those that the package carries, so that `align plan` needs no network for the models that it
names.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
VICUNA = {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
SIZE_13B = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}


def llava(**text: Any) -> Any:
    """LLaVA-1.5: CLIP-L/336 and Vicuna; a bare one is the 7B."""
    from transformers import LlavaConfig

    return LlavaConfig(
        vision_config=CLIP,
        text_config=VICUNA | text,
        image_token_index=32000,
        pad_token_id=32001,
        vision_feature_layer=-2,
        tie_word_embeddings=False,
        dtype="float16",
    )


def qwen2_vl(vocabulary: int, width: int, layers: int, heads: int, kv_heads: int, inner: int, tied: bool) -> Any:
    """Qwen2-VL: one vision tower for all sizes, which projects to the width of the language model."""
    from transformers import Qwen2VLConfig

    text = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": tied,
    }
    vision = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "hidden_size": width, "patch_size": 14}
    return Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied, dtype="bfloat16")


def qwen2_5_vl() -> Any:
    """Qwen2.5-VL-7B: Qwen2-VL's language model, and a vision tower with window attention."""
    from transformers import Qwen2_5_VLConfig

    text = qwen2_vl(152064, 3584, 28, 28, 4, 18944, False).text_config.to_dict() | {"max_position_embeddings": 128000}
    vision = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }
    del text["model_type"]
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, dtype="bfloat16")


def qwen3_vl() -> Any:
    """Qwen3-VL-4B."""
    from transformers import Qwen3VLConfig

    text = {
        "vocab_size": 151936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262144,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "out_hidden_size": 2560,
        "patch_size": 16,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [5, 11, 17],
    }
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, dtype="bfloat16")


MODELS = {
    "llava-1.5-7b-hf": lambda: llava(),
    "llava-1.5-13b-hf": lambda: llava(**SIZE_13B),
    "Qwen2-VL-2B-Instruct": lambda: qwen2_vl(151936, 1536, 28, 12, 2, 8960, True),
    "Qwen2-VL-7B-Instruct": lambda: qwen2_vl(152064, 3584, 28, 28, 4, 18944, False),
    "Qwen2.5-VL-7B-Instruct": qwen2_5_vl,
    "Qwen3-VL-4B-Instruct": qwen3_vl,
}
"""Last part of the hub id -> its configuration."""


def write(folder: Path) -> Path:
    """A folder of folders, each with a config.json."""
    for name, config in MODELS.items():
        config().save_pretrained(folder / name)
    return folder


if __name__ == "__main__":
    given = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if set(given) != {"out"}:
        sys.exit("usage: python tests/support/full_size.py out=<folder>")
    write(Path(given["out"]))
