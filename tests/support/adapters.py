"""Adapters that do something: a fresh one changes no logit, so that tests of it would pass whatever is broken."""

import torch
from peft import get_peft_model

from align.models.lora import lora_config
from align.models.trainable import modules_of
from align.settings import Lora


def trained(model, scale=0.05):
    """The same model, its adapter and the towers trained beside it moved away from where they began."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and ("lora_B" in name or "modules_to_save" in name):
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * scale)
    return model


def adapted(it, in_full=(), **lora):
    """A loaded model with such an adapter on it; `in_full` names towers that are trained in full beside it."""
    modules = [module for tower in in_full for module in modules_of(it.model, it.family, tower)]
    it.model = trained(get_peft_model(it.model, lora_config(it.model, it.family, Lora(**({"r": 4} | lora)), modules)))
    return it


def saved(it, folder):
    """The adapter's folder, as a run writes it."""
    it.model.save_pretrained(folder)
    it.processor.save_pretrained(folder)
    return folder
