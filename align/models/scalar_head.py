"""A scalar head on an adapter: a reward model or a critic, on a base that it shares with a policy.

The head is a linear layer without bias on the hidden state of the last layer (SPA-VL, arXiv
2406.12030; Ouyang et al. 2022, arXiv 2203.02155). It is saved next to its adapter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from align.errors import UserError

FILE = "scalar_head.safetensors"
WEIGHT = "weight"


def head_name(adapter: str) -> str:
    """The name of the module that is the head of an adapter."""
    return f"{adapter}_head"


def new_head(model: Any, adapter: str, seed: int, outputs: int = 1) -> torch.nn.Linear:
    """Add a trainable head (outputs, hidden size) for `adapter` to a PeftModel.

    Its weights are normal with standard deviation 1 / sqrt(hidden size + 1), as in Stiennon et al.
    2020 (arXiv 2009.01325).
    """
    inner = model.get_base_model()
    hidden = inner.config.get_text_config().hidden_size
    head = torch.nn.Linear(hidden, outputs, bias=False)
    with torch.no_grad():
        head.weight.normal_(0.0, (hidden + 1) ** -0.5, generator=torch.Generator().manual_seed(seed))
    return _attached(inner, adapter, head)


def _attached(inner: Any, adapter: str, head: torch.nn.Linear) -> torch.nn.Linear:
    # The hidden states of the last layer are where the model's output head is.
    inner.add_module(head_name(adapter), head.to(inner.get_output_embeddings().weight.device))
    return head


def add_adapter_with_head(model: Any, adapter: str, folder: str, trainable: bool) -> torch.nn.Linear:
    """Add a saved adapter and its head to a PeftModel, under the name `adapter`. Raises UserError."""
    head = read_head(folder)
    hidden = model.get_base_model().config.get_text_config().hidden_size
    if head.in_features != hidden:
        raise UserError(
            f"reward model {folder}: its head is for hidden states of {head.in_features}, the model's have {hidden}; "
            "a reward model must be trained on the same base model as the policy"
        )
    try:
        model.load_adapter(folder, adapter_name=adapter, is_trainable=trainable)
    except (RuntimeError, ValueError, OSError, SafetensorError) as error:
        raise UserError(f"reward model {folder}: its adapter does not fit the model: {error}") from error
    _attached(model.get_base_model(), adapter, head)
    set_trainable(model, adapter, trainable)
    return head


def hold_in_float32(model: Any, adapter: str) -> None:
    """Keep the trained parameters of an adapter in float32; trl casts those on a quantized base to
    bfloat16, in which most updates at the small rates of PPO would round to zero.
    """
    for parameter in parameters_of(model, adapter).values():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def set_trainable(model: Any, adapter: str, trainable: bool) -> None:
    """Whether the parameters of an adapter and of its head, if it has one, are trained."""
    for parameter in parameters_of(model, adapter).values():
        parameter.requires_grad_(trainable)
        if trainable:
            parameter.data = parameter.data.float()


def parameters_of(model: Any, adapter: str) -> dict[str, torch.nn.Parameter]:
    """The parameters of an adapter and of its head in a PeftModel, by name."""
    named = dict(model.named_parameters())
    return {
        name: parameter for name, parameter in named.items() if {adapter, head_name(adapter)} & set(name.split("."))
    }


def write_head(head: torch.nn.Linear, folder: Path, facts: dict[str, Any]) -> None:
    """Save a head next to its adapter; `facts` are stored as metadata."""
    weight = head.weight.detach().cpu().contiguous()
    save_file({WEIGHT: weight}, folder / FILE, metadata={"format": "pt", "facts": json.dumps(facts)})


def read_head(folder: str) -> torch.nn.Linear:
    """The saved head of a reward model. Raises UserError."""
    path = Path(folder, FILE)
    try:
        with safe_open(path, "pt") as file:
            weight = file.get_tensor(WEIGHT)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder} is no reward model: {FILE} cannot be read ({error}); train one with method=reward, and give its "
            "run folder"
        ) from error
    head = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    head.weight.data = weight.float()
    return head


def read_facts(folder: str) -> dict[str, Any]:
    """The facts that were stored with a head. Raises UserError."""
    read_head(folder)
    with safe_open(Path(folder, FILE), "pt") as file:
        return dict(json.loads((file.metadata() or {}).get("facts", "{}")))
