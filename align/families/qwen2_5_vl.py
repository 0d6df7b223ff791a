"""Qwen2.5-VL: Qwen2-VL with window attention in its vision transformer."""

from align.families import Family

FAMILY = Family(
    "qwen2_5_vl",
    {
        "multi_modal_projector": "model.visual.merger",
        "vision_tower": "model.visual",
        "language_model": "model.language_model",
    },
    end_of_turn_token="<|im_end|>",
    lays_out=True,
)
