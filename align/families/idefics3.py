"""Idefics3: SigLIP, a pixel shuffle and one linear layer, Llama. An image is divided into tiles, and the
processor writes the row and column of each. All tiles of a batch are in one row of a tensor (1, tiles, ...).
"""

from align.families import Family

FAMILY = Family(
    "idefics3",
    {
        "vision_tower": "model.vision_model",
        "multi_modal_projector": "model.connector",
        "language_model": "model.text_model",
    },
    end_of_turn_token="<end_of_utterance>",
    image_axis=1,
    counts_image_tokens=False,
)
