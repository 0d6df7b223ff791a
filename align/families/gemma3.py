"""Gemma 3 (4B to 27B): SigLIP, one projection matrix, Gemma. Image tokens attend to each other in both directions.

The processor writes two more tokens around the image tokens.
"""

from align.families import Family

FAMILY = Family(
    "gemma3",
    {
        "vision_tower": "model.vision_tower",
        "multi_modal_projector": "model.multi_modal_projector",
        "language_model": "model.language_model",
    },
    end_of_turn_token="<end_of_turn>",
    image_token="<image_soft_token>",
)
