"""What is measured of sampled responses: log-probabilities, values of a critic, reward models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from align.batches.collators import Collator
from align.batches.rendered import Rendered
from align.methods.rewards import Reward
from align.methods.rollouts.rollout import Rollout
from align.methods.rollouts.scoring import in_chunks, last_values, per_response, reward_batch
from align.models.adapters import Adapters
from align.models.reference import FROZEN, asked_only

VALUES = ("values", "cost_values")
"""What a critic's outputs are."""


def adapter_of(reward: Reward) -> str:
    """The name of a reward model's adapter next to the policy's."""
    return f"reward_{reward.name}"


def on_device(batch: dict[str, Any], device: Any) -> dict[str, Any]:
    """The batch on a device; `layout` is a dictionary of tensors."""
    return {
        key: on_device(of, device) if isinstance(of, dict) else of.to(device) if torch.is_tensor(of) else of
        for key, of in batch.items()
    }


@dataclass(frozen=True)
class Measurement:
    """Forward passes over responses, with the adapters of one model."""

    model: Any
    adapters: Adapters
    collator: Collator
    device: Any
    critic: str | None
    """The scalar head whose values are measured."""
    with_reference: bool
    rewards: Sequence[Reward]
    """Those that are reward models."""

    def measure(self, rollouts: Sequence[Rollout], rendered: Sequence[Rendered], size: int) -> None:
        """Fill in the rollouts, `size` at a time."""
        with asked_only(self.model):
            for places, chunk in in_chunks(rendered, size):
                self._measure([rollouts[i] for i in places], chunk)

    def _measure(self, rollouts: Sequence[Rollout], rendered: Sequence[Rendered]) -> None:
        batch = on_device(self.collator.lay_out(rendered), self.device)
        output = self._computed(batch, scalar=self.critic)
        _fill(rollouts, "log_probs", output.log_probs, output.label_mask)
        if self.critic is not None:
            for i, name in enumerate(VALUES[: output.scalars.size(2)]):
                _fill(rollouts, name, output.scalars[..., i], output.label_mask)
        if self.with_reference:
            with self.adapters.use(FROZEN if FROZEN in self.model.peft_config else None):
                output = self._computed(batch)
            _fill(rollouts, "reference", output.log_probs, output.label_mask)
        if self.rewards:
            self._ask_reward_models(rollouts, rendered)

    def _ask_reward_models(self, rollouts: Sequence[Rollout], rendered: Sequence[Rendered]) -> None:
        batch = on_device(reward_batch(self.collator, rendered), self.device)
        for reward in self.rewards:
            output = self._computed(batch, scalar=adapter_of(reward), log_probs=False)
            for one, found in zip(rollouts, last_values(output).tolist(), strict=True):
                one.rewards[reward.name] = found

    def _computed(self, batch: dict[str, Any], **more: Any) -> Any:
        return self.model(**batch, use_cache=False, fused_lm_head=True, **more)


def _fill(rollouts: Sequence[Rollout], name: str, values: torch.Tensor, mask: torch.Tensor) -> None:
    for one, found in zip(rollouts, per_response(values, mask), strict=True):
        setattr(one, name, found)
