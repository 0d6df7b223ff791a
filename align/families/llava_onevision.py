"""LLaVA-OneVision: SigLIP, two linear layers, Qwen2. A single image is divided into tiles; of several
images each is seen as a whole, so the number of tokens of an image depends on how many a row has.
"""

from align.families import Family

FAMILY = Family(
    "llava_onevision",
    {
        "vision_tower": "model.vision_tower",
        "multi_modal_projector": "model.multi_modal_projector",
        "language_model": "model.language_model",
    },
    end_of_turn_token="<|im_end|>",
    counts_image_tokens=False,
)
