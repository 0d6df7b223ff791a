"""Models of 6 to 8 million parameters, real classes and processors, random weights: large enough to
tell what a step costs.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText

from align.miniature.models import build

PIXELS = {"llava": [], "qwen2_vl": ["model.min_pixels=1024", "model.max_pixels=1024"]}
"""What a run says of images, so that they are 32 x 32 as for the processor that is saved."""


def mid_size(family: str, folder: Path) -> Path:
    """The miniature's model with wider and more layers; of LLaVA the vision tower's last layer is
    not used, as in the real one.
    """
    torch.manual_seed(0)
    model, processor = build(family)
    config, text, vision = model.config, model.config.text_config, model.config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 256, 704, 6
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 4, 2, 64
    text.layer_types = ["full_attention"] * 6
    if family == "llava":
        vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers = 192, 512, 5
        config.vision_feature_layer = -2
    else:
        vision.depth, vision.embed_dim, vision.hidden_size, vision.mlp_ratio = 5, 192, 256, 4
        text.rope_parameters = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]}
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
