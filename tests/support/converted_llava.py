"""A converted LLaVA, compared with the original."""

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

IMAGE = Image.radial_gradient("L").resize((48, 40)).convert("RGB")
TURN = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]


def differences(original, folder):
    """The largest differences of a logit between the original and the converted model, on a text and on an image."""
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    prompt = processor.apply_chat_template(TURN, add_generation_prompt=True)
    assert prompt == "USER: <image>\nWhat is this? ASSISTANT:"
    found = []
    for text, image in (("USER: the cat sat ASSISTANT:", None), (prompt, IMAGE)):
        inputs = processor(text=[text], images=[image] if image else None, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        wanted = original.logits(text, image)
        assert logits.shape[0] == wanted.shape[0]
        found.append((logits[:, : wanted.shape[1]] - wanted).abs().max().item())
    return found
