"""LLaVA-NeXT (LLaVA-1.6): LLaVA-1.5 with tiles of an image in addition to the whole image.

An image of several tiles has one more vector, `image_newline`, which belongs to no tower. The
published processors write `<image>` and expand it to one token for each patch that is not padding.
"""

from align.families import Family

FAMILY = Family(
    "llava_next",
    {
        "vision_tower": "model.vision_tower",
        "multi_modal_projector": "model.multi_modal_projector",
        "language_model": "model.language_model",
    },
)
