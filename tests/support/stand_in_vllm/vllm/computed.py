"""The stand-in's model, computed by transformers."""

import torch

from align.models.loading import load
from align.settings import ModelSettings


class Computed:
    """(prompt, parameters, adapter) -> (ids as read, written tokens, log-probability of each id)."""

    def __init__(self, model, dtype, fault):
        torch.set_num_threads(1)
        self._settings, self._fault = ModelSettings(name="model", path=model, dtype=dtype), fault
        self._loaded = {}

    def __call__(self, prompt, params, adapter):
        path = None if self._fault == "ignores_adapter" else adapter
        if path not in self._loaded:
            self._loaded[path] = load(self._settings, path)
        loaded = self._loaded[path]
        ids, images = self._read(loaded.renderer, prompt)
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        if loaded.family.model_type == "qwen2_vl":
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == loaded.renderer.image_token_id).long()
        loaded.model.eval()
        with torch.no_grad():
            made = loaded.model.generate(
                **inputs,
                **images,
                max_new_tokens=params.max_tokens,
                do_sample=False,
                eos_token_id=list(params.stop_token_ids) or None,
            )
            scores = torch.log_softmax(loaded.model(**inputs, **images).logits[0].float(), -1)
        each = [0.0, *(scores[i, token].item() for i, token in enumerate(ids[1:]))]
        return ids, made[0, len(ids) :].tolist(), each

    def _read(self, renderer, prompt):
        """The prompt's tokens with expanded images, and the image tensors."""
        ids = prompt["prompt_token_ids"][1:] if self._fault == "no_beginning" else prompt["prompt_token_ids"]
        shown = prompt.get("multi_modal_data", {}).get("image", [])
        images, counts = renderer.images.inputs(shown) if shown else ({}, [])
        if self._fault == "other_image" and shown:
            images["pixel_values"] = images["pixel_values"] * 0.5
        repeats = iter(counts)
        ids = [token for one in ids for token in [one] * (next(repeats) if one == renderer.image_token_id else 1)]
        return ids, images
