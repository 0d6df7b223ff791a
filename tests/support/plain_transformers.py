"""A folder as somebody reads it who has transformers and nothing of ours:  python -I
plain_transformers.py <folder> <in> <out>

`in` holds batches of inputs, `<prompt>/<name>`, and an image; `out` gets the logits, and what the
folder's own processor, or where that needs torchvision its parts, makes of the image.
"""

import sys

sys.modules["align"] = None  # an import of it, by whomever, is an ImportError

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Qwen2VLImageProcessorPil,
)
from transformers.utils import is_torchvision_available  # noqa: E402

folder, given, output = sys.argv[1:]
tensors = load_file(given)
image = tensors.pop("image").numpy()
model = AutoModelForImageTextToText.from_pretrained(folder).eval()
made = {}
for prompt in sorted({name.partition("/")[0] for name in tensors}):
    inputs = {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{prompt}/")}
    with torch.no_grad():
        made[prompt] = model(**inputs).logits
if model.config.model_type == "qwen2_vl" and not is_torchvision_available():
    tokenizer, images = AutoTokenizer.from_pretrained(folder), Qwen2VLImageProcessorPil.from_pretrained(folder)
else:
    processor = AutoProcessor.from_pretrained(folder)
    tokenizer, images = processor.tokenizer, processor.image_processor
made["pixel_values"] = torch.as_tensor(images(image, return_tensors="pt")["pixel_values"])
turn = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}]}]
prompt = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
made["ids"] = torch.tensor(tokenizer(prompt).input_ids)[None]
save_file(made, output)
