"""LLaVA-1.5: CLIP, two linear layers, Vicuna. Its template writes no end of turn; the
end-of-sequence token ends a turn.
"""

from align.families import Family

FAMILY = Family(
    "llava",
    {
        "vision_tower": "model.vision_tower",
        "multi_modal_projector": "model.multi_modal_projector",
        "language_model": "model.language_model",
    },
    lays_out=True,
)
