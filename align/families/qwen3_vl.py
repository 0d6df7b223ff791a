"""Qwen3-VL: a vision transformer whose lower layers also reach the language model, each through a
merger of its own (deepstack). All mergers are the projector.
"""

from align.families import Family

FAMILY = Family(
    "qwen3_vl",
    {
        "multi_modal_projector": ("model.visual.merger", "model.visual.deepstack_merger_list"),
        "vision_tower": "model.visual",
        "language_model": "model.language_model",
    },
    end_of_turn_token="<|im_end|>",
)
