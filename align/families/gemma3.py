"""Gemma 3 (4B to 27B): SigLIP, one matrix, Gemma. The image's own tokens see each other; its processor writes them between two others."""

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
