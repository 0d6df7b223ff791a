"""InternVL 2.5 to 3.5, in the format of transformers (OpenGVLab/InternVL3-8B-hf): InternViT, two linear
layers, Qwen. An image is divided into tiles, and the processor writes `<img>` and `</img>` around its tokens.
"""

from align.families import Family

FAMILY = Family(
    "internvl",
    {
        "vision_tower": "model.vision_tower",
        "multi_modal_projector": "model.multi_modal_projector",
        "language_model": "model.language_model",
    },
    end_of_turn_token="<|im_end|>",
)
