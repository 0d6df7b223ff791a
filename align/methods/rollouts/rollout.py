"""A rollout: one response that the policy sampled for one row, and what was measured of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from align.errors import UserError

PER_TOKEN = ("log_probs", "reference", "values", "cost_values", "advantages", "returns", "cost_returns")
"""The tensors of a rollout with one number for each token; those that a method does not need are empty."""


@dataclass
class Rollout:
    """One sampled response. All tensors are on the CPU, so that a round can be sent and saved."""

    row: int
    """The number of the row."""
    sample: int
    """Which of the row's responses it is."""
    tokens: list[int]
    """The sampled tokens, the end of turn included if the policy wrote it."""
    response: str
    finished: bool
    """Whether the policy ended its turn; otherwise the response is cut at max_completion_length."""
    log_probs: torch.Tensor
    """Of the policy that sampled it (tokens,)."""
    reference: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """Log-probabilities of the reference model (tokens,)."""
    values: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    cost_values: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    advantages: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    returns: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    cost_returns: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    rewards: dict[str, float | None] = field(default_factory=dict)
    """{name of a reward: its value before the weight; None if it has none}."""
    score: float | None = None
    """The weighted sum of the rewards, with penalties; None if a reward has no value."""
    cost: float | None = None

    @property
    def kl(self) -> float:
        """Sum over tokens of log p - log p_ref: an estimate of the divergence of the whole response."""
        return float((self.log_probs - self.reference).sum()) if len(self.reference) else 0.0


def save(path: Path, rollouts: Sequence[Rollout], facts: dict[str, Any]) -> None:
    """Write the rollouts of a round to a safetensors file; `facts` are read back with them."""
    tensors: dict[str, torch.Tensor] = {}
    plain = []
    for i, rollout in enumerate(rollouts):
        plain.append({key: value for key, value in vars(rollout).items() if key not in PER_TOKEN})
        tensors |= {f"{i}.{name}": getattr(rollout, name).contiguous() for name in PER_TOKEN}
    save_file(tensors, path, metadata={"format": "pt", "facts": json.dumps(facts), "rollouts": json.dumps(plain)})


def load(path: Path) -> tuple[list[Rollout], dict[str, Any]]:
    """(Rollouts, facts) of a file of `save`. Raises UserError."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata()
            plain = json.loads(about["rollouts"])
            rollouts = [
                Rollout(**one, **{name: file.get_tensor(f"{i}.{name}") for name in PER_TOKEN})
                for i, one in enumerate(plain)
            ]
            return rollouts, dict(json.loads(about["facts"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: the rollouts of the checkpoint cannot be read: {error}; start the run again with resume=false, or "
            "remove this checkpoint, and the run resumes from the one before"
        ) from error
