"""The matrices of a model in forward order: layer of each, and its work in the backward pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from align.families import ENCODES_IMAGES
from align.planning.skeleton import Skeleton

HEAD = "output_head"


@dataclass(frozen=True)
class Matrix:
    """One linear layer, or the convolution that reads patches."""

    name: str
    tower: str
    layer: str | None
    """Its checkpointed layer; None outside of layers."""
    weights: int
    inputs: int
    outputs: int
    trained: bool
    adapter: bool
    """Whether it is part of an adapter.

    A reference model without the adapter does not compute it.
    """
    input_gradient: bool
    """Whether the backward pass continues to earlier layers."""
    reached: bool
    """Whether the backward pass reaches it."""
    attention: int
    """Width of the attention that begins with it (its queries); 0 for all others."""
    last: bool
    """Whether it is the last matrix of its layer.

    Its output is not recomputed, because nothing needs it.
    """

    @property
    def recomputed(self) -> bool:
        """Whether gradient checkpointing recomputes it."""
        return self.layer is not None and self.reached and not self.last


def matrices(it: Skeleton, checkpointing: bool) -> list[Matrix]:
    """All matrices, without the originals that peft keeps of modules trained in full.

    With checkpointing, transformers starts gradients at the embeddings of every tower
    (`enable_input_require_grads`), so the backward pass also runs through frozen layers of the
    language model and of every tower with trained parts. A completely frozen vision tower and
    projector are skipped (align/fast/model_inputs.py). Without checkpointing, the backward pass
    ends at the first trained matrix.
    """
    encodes = [p for name, p in it.model.named_parameters() if it.family.tower_of(name) in ENCODES_IMAGES]
    encoding_frozen = not any(parameter.requires_grad for parameter in encodes)
    unused = _unused_layers(it)
    layers = [name for name, module in it.model.named_modules() if isinstance(module, GradientCheckpointingLayer)]
    found: list[Matrix] = []
    flowing = False
    for name, module in it.model.named_modules():
        if ".original_module" in name:
            continue
        trained = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        for weight in _weights(module, it.config):
            reads_pixels = isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d)
            layer = next((layer for layer in layers if name.startswith(f"{layer}.")), None)
            tower = it.family.tower_of(name) or HEAD
            begins = checkpointing and not (encoding_frozen and tower in ENCODES_IMAGES)
            reached = (flowing or trained or (begins and not reads_pixels)) and layer not in unused
            found.append(
                Matrix(
                    name,
                    tower,
                    layer,
                    weight.inputs * weight.outputs,
                    weight.inputs,
                    weight.outputs,
                    trained,
                    "lora_" in name,
                    reached and not reads_pixels and (flowing or begins),
                    reached,
                    _attention(name, weight.outputs),
                    False,
                )
            )
        flowing = flowing or trained
    return _with_last(found)


@dataclass(frozen=True)
class _Weight:
    inputs: int
    outputs: int


def _weights(module: torch.nn.Module, config: Any) -> list[_Weight]:
    """The matrices of a module that a token is multiplied with: its own, or those of a few of its experts."""
    if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.Conv3d):
        weight: Any = module.weight
        return [_Weight(weight[0].numel(), weight.shape[0])]
    experts = [p for p in module.parameters(recurse=False) if p.dim() == 3 and hasattr(module, "num_experts")]
    chosen = getattr(config.get_text_config(), "num_experts_per_tok", 1)
    return [_Weight(p.shape[2], chosen * p.shape[1]) for p in experts]


def _attention(name: str, width: int) -> int:
    own = name.removesuffix(".base_layer").rpartition(".")[2]
    return {"q_proj": width, "qkv": width // 3}.get(own, 0)


def _with_last(found: list[Matrix]) -> list[Matrix]:
    """Mark the last matrix of each layer."""
    ends = {matrix.layer: matrix.name for matrix in found}
    return [replace(matrix, last=ends[matrix.layer] == matrix.name) for matrix in found]


def _unused_layers(it: Skeleton) -> set[str]:
    """Layers of the vision tower after the one that LLaVA uses: computed, no gradients."""
    taken = getattr(it.config, "vision_feature_layer", None)
    if not isinstance(taken, int):
        return set()
    layers = [
        name
        for name, module in it.model.named_modules()
        if isinstance(module, GradientCheckpointingLayer) and it.family.tower_of(name) == "vision_tower"
    ]
    used = taken if taken >= 0 else len(layers) + 1 + taken
    return set(layers[used:])
