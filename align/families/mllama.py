"""Llama 3.2 Vision: tiles of an image are read through cross-attention, and an image is one token.

In a batch, transformers lets a row without images attend to the images of other rows, so each row
has a forward pass of its own.
"""

from align.families import Family

FAMILY = Family(
    "mllama",
    {
        "vision_tower": "model.vision_model",
        "multi_modal_projector": "model.multi_modal_projector",
        "language_model": "model.language_model",
    },
    end_of_turn_token="<|eot_id|>",
    per_token=("cross_attention_mask",),
    mixes_rows=False,
)
