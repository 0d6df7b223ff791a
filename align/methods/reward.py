"""A reward model: a scalar head on an adapter, trained on pairs of a chosen and a rejected answer.

L = mean over pairs of -log(sigmoid(r_chosen - r_rejected - margin) + epsilon)
  + center_rewards_coefficient * (r_chosen + r_rejected)^2

r is the head's value at the last token of the answer (Ouyang et al. 2022, arXiv 2203.02155, eq. 1;
SPA-VL's script, arXiv 2406.12030, has epsilon 1e-5; the second term is Eisenstein et al. 2023, arXiv
2312.09244). Pairs with images, without, and both in one batch.

Part of the pairs is held out, and the accuracy on them is recorded in the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.nn.functional import logsigmoid
from trl import SFTConfig

from align.batches.collators import PAIR, PairsCollator
from align.batches.rendered import Rendered
from align.batches.rendering import Renderer
from align.errors import UserError
from align.fast.supervised_head import Scalar
from align.methods.distributed import divides_weights
from align.methods.held_out import Pair
from align.methods.preference_base import PairsTrainer
from align.methods.rollouts.scoring import last_values, with_end
from align.methods.terms import Term
from align.models.adapters import POLICY, Adapters
from align.models.reference import asked_only
from align.models.scalar_head import hold_in_float32, new_head, read_head, write_head
from align.rows import Row
from align.settings import RunConfig

REWARD = "reward"
"""The name of the scalar head in a run that trains it."""


@dataclass
class RewardConfig(SFTConfig):
    """trl's SFTConfig, plus the settings of the loss; trl's RewardConfig has the same names."""

    center_rewards_coefficient: float = field(
        default=0.0, metadata={"help": "weight of the squared sum of a pair's rewards, which keeps their mean near 0"}
    )
    margin: float = field(default=0.0, metadata={"help": "by how much a chosen answer's reward should be higher"})
    epsilon: float = field(default=0.0, metadata={"help": "added to the sigmoid, as in SPA-VL's script (1e-5)"})
    held_out: float = field(
        default=0.1, metadata={"help": "share of the pairs that are not trained on; the accuracy is measured on them"}
    )


def pairwise_losses(chosen: torch.Tensor, rejected: torch.Tensor, config: RewardConfig) -> torch.Tensor:
    """The first term of L above for each pair; `chosen` and `rejected` are rewards (pairs,)."""
    difference = chosen - rejected - config.margin
    if config.epsilon:
        return -torch.log(torch.sigmoid(difference) + config.epsilon)
    return -logsigmoid(difference)


class RewardCollator(PairsCollator):
    """Pairs for a scalar head, which is computed at the last token of each answer."""

    def lay_out(self, rendered: Sequence[Rendered]) -> dict[str, Any]:
        """As `Collator`, with one more token after each answer (align/methods/rollouts/scoring.py)."""
        return super().lay_out([with_end(one) for one in rendered])


class Reward(PairsTrainer):
    """A reward model: see the module docstring."""

    config_class: type = RewardConfig
    holds_out = True

    @staticmethod
    def check_arguments(arguments: Any, config: RunConfig) -> None:
        """Raises UserError for settings that are not valid, or that this method does not support."""
        if config.lora is None:
            raise UserError(
                "method=reward with lora=null: a reward model is an adapter with a scalar head, which shares its base "
                "with the policy; train an adapter (remove lora=null)"
            )
        if divides_weights():
            raise UserError(
                "method=reward cannot be trained under ZeRO-3 or FSDP; launch it with ddp.yaml or zero2.yaml"
            )
        for name, value in {"held_out": arguments.held_out, "epsilon": arguments.epsilon}.items():
            if not 0 <= value < 1:
                raise UserError(f"train.{name}={value}: expected at least 0 and less than 1")

    @classmethod
    def collator(cls, renderer: Renderer, arguments: Any) -> RewardCollator:
        """The chosen answers of all rows, then the rejected ones."""
        return RewardCollator(renderer, arguments.max_length, arguments.pad_to_multiple_of)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        model = self.accelerator.unwrap_model(self.model)
        self.scalar_head = new_head(model, POLICY, self.args.seed)
        hold_in_float32(model, POLICY)
        adapters = Adapters(model)
        self.head.scalars[REWARD] = Scalar(lambda: adapters.use(POLICY), self.scalar_head)

    def forward(self, model: Any, inputs: dict[str, Any]) -> Any:
        """The scalar head's output alone."""
        return model(**inputs, use_cache=False, fused_lm_head=True, scalar=REWARD, log_probs=False)

    def terms(self, output: Any, part: torch.Tensor, reference: torch.Tensor | None) -> dict[str, Term]:
        """The terms of L above."""
        chosen, rejected = last_values(output).chunk(2)
        found = {"pairs": Term(1.0, pairwise_losses(chosen, rejected, self.args), PAIR[0], "answer")}
        if self.args.center_rewards_coefficient:
            squares = (chosen + rejected) ** 2
            found["center"] = Term(self.args.center_rewards_coefficient, squares, PAIR[0], "answer")
        return found

    def log_metrics(self, output: Any, inputs: dict[str, Any]) -> None:
        """Log what trl's RewardTrainer logs, under its names."""
        rewards = self.accelerator.gather(last_values(output).detach()[None])  # (processes, chosen and rejected)
        chosen, rejected = rewards.chunk(2, dim=1)
        found = {
            "accuracy": (chosen > rejected).float().mean(),
            "margin": (chosen - rejected).mean(),
            "min_reward": rewards.min(),
            "mean_reward": rewards.mean(),
            "max_reward": rewards.max(),
        }
        for name, value in found.items():
            self._metrics["train"][name].append(value.item())

    def held_out(self) -> list[Pair]:
        """The rewards of the held-out pairs. Every process calls it, and gets all pairs."""
        rows, size = self.parts.held_out, self.args.per_device_train_batch_size
        mine = rows[self.accelerator.process_index :: self.accelerator.num_processes]
        model = self.accelerator.unwrap_model(self.model)
        chunks = [mine[start : start + size] for start in range(0, len(mine), size)]
        with asked_only(model):
            pairs = [pair for chunk in chunks for pair in self._pairs(model, chunk)]
        return pairs if self.accelerator.num_processes == 1 else gather_object(pairs)

    def _pairs(self, model: Any, rows: Sequence[Row]) -> list[Pair]:
        rendered = [self.data_collator.render(row) for row in rows]
        batch = self.data_collator.lay_out([one[field] for field in PAIR for one in rendered])
        with self.accelerator.autocast():
            output = self.forward(model, self._prepare_inputs(batch))
        chosen, rejected = last_values(output).chunk(2)
        return [Pair(*of) for of in zip(rows, chosen.tolist(), rejected.tolist(), strict=True)]

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir)
        facts = {"rendering": self.data_collator.renderer.identity, **self.parts.reward_facts}
        if self.accelerator.is_main_process:  # transformers calls this in every process
            write_head(self.scalar_head, folder, facts)

    def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(checkpoint, model)
        self.scalar_head.weight.data.copy_(read_head(checkpoint).weight)
