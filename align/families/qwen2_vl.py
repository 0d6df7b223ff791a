"""Qwen2-VL: its own vision transformer, a merger as projector, ChatML.

The merger is inside the vision module, so its prefix comes first.
"""

from align.families import Family

FAMILY = Family(
    "qwen2_vl",
    {
        "multi_modal_projector": "model.visual.merger",
        "vision_tower": "model.visual",
        "language_model": "model.language_model",
    },
    end_of_turn_token="<|im_end|>",
    lays_out=True,
)
