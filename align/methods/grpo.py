"""GRPO: group relative policy optimisation, with trl's loss over our rollouts.

For each prompt, num_generations responses are sampled. The advantage of a response is its reward
minus the mean of its prompt's, divided by their standard deviation (Shao et al. 2024, arXiv
2402.03300, section 4.1; `scale_rewards`). With `advantage_estimator: rloo` it is the reward minus
the mean of the prompt's other responses (Ahmadian et al. 2024, arXiv 2402.14740, eq. 8).

The loss is trl's (`loss_type`, `epsilon`, `beta`): clipped ratios, plus beta times the divergence
from the reference model. trl's own rollouts raise on batches that mix rows with and without images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
import trl
from transformers import Trainer
from trl import GRPOTrainer

from align.batches.rendered import Rendered
from align.errors import UserError
from align.methods.rollouts import advantages
from align.methods.rollouts.rollout import Rollout
from align.methods.rollouts.scoring import placed
from align.methods.rollouts.settings import INERT, RolloutSettings, check_rollouts, plan_of
from align.methods.rollouts.trainer import RolloutTrainer
from align.settings import RunConfig

LOSSES = ("grpo", "dapo", "dr_grpo", "cispo", "sapo")
"""trl's losses that do not depend on how a step is divided into forward passes."""
ESTIMATORS = ("grpo", "rloo")
SCALES = ("group", "batch", "none")
PER_PASS = "it is computed for each forward pass, so accumulation would change the result"
ELSEWHERE = "responses are sampled as in evaluation"


@dataclass
class GRPOConfig(RolloutSettings, trl.GRPOConfig):
    """trl's GRPOConfig, plus the estimator of the advantages."""

    advantage_estimator: str = field(
        default="grpo",
        metadata={"help": "grpo: relative to the mean of the prompt's responses | rloo: to the mean of the others"},
    )


class GRPO(RolloutTrainer, GRPOTrainer):
    """Group relative policy optimisation: see the module docstring."""

    config_class: type = GRPOConfig
    trl_collates = False
    storable = "the responses of a run are new in every round"
    inert = {key: why for key, why in INERT.items() if key != "loss_type"} | {
        "steps_per_generation": "it would depend on the number of processes; use train.generation_batch_size",
        "reward_weights": "use rewards.<name>.weight",
        "log_completions": "rollouts.jsonl has samples (train.sample_steps, train.samples)",
        "num_generations_eval": "evaluation runs in a separate process",
        "use_vllm": ELSEWHERE,
        "use_transformers_continuous_batching": ELSEWHERE,
        "generation_kwargs": ELSEWHERE,
        "min_p": ELSEWHERE,
        "repetition_penalty": ELSEWHERE,
        "cache_implementation": ELSEWHERE,
        "sync_ref_model": "the reference model is always the model that the run starts from",
        "multi_objective_aggregation": "the weighted sum of the rewards is normalised",
        "disable_dropout": "dropout is always off",
        **{one.name: ELSEWHERE for one in fields(trl.GRPOConfig) if one.name.startswith("vllm_")},
        **dict.fromkeys(("top_entropy_quantile", "entropy_coef", "use_adaptive_entropy"), PER_PASS),
        **dict.fromkeys(
            ("log_multimodal", "log_unique_prompts", "num_completions_to_print"), "rollouts.jsonl has samples"
        ),
        **dict.fromkeys(
            ("ref_model_mixup_alpha", "ref_model_sync_steps", "ds3_gather_for_generation"), "it is not used"
        ),
        **dict.fromkeys(("max_tool_calling_iterations", "chat_template_kwargs", "use_transformers_paged"), ELSEWHERE),
    }

    @staticmethod
    def check_arguments(arguments: Any, config: RunConfig) -> None:
        """Raises UserError for settings that are not valid, or that make the result depend on the launch."""
        check_rollouts(arguments, config)
        plan_of(arguments, config.global_batch_size, arguments.num_generations, arguments.num_iterations)
        if arguments.loss_type not in LOSSES:
            raise UserError(
                f"train.loss_type={arguments.loss_type}: expected one of {', '.join(LOSSES)}; with trl's other losses "
                "the number of processes and accumulated passes would change the result"
            )
        if arguments.advantage_estimator not in ESTIMATORS:
            raise UserError(
                f"train.advantage_estimator={arguments.advantage_estimator}: expected one of {', '.join(ESTIMATORS)}"
            )
        if arguments.scale_rewards not in SCALES:
            raise UserError(f"train.scale_rewards={arguments.scale_rewards}: expected one of {', '.join(SCALES)}")
        if arguments.advantage_estimator == "rloo" and arguments.scale_rewards != "none":
            raise UserError(
                f"train.advantage_estimator=rloo with train.scale_rewards={arguments.scale_rewards}: RLOO divides by no "
                "standard deviation; set train.scale_rewards=none"
            )
        if arguments.beta == 0 and arguments.max_kl is not None:
            raise UserError(
                "train.max_kl with train.beta=0: the reference model is not computed, so the divergence from it is "
                "unknown; set train.beta above 0, or remove train.max_kl"
            )

    def __init__(self, *args: Any, **kwargs: Any):
        # trl requires a reward function. It is never called: `_filled` replaces what would call it.
        super().__init__(*args, reward_funcs=[_scored_elsewhere], **kwargs)

    @property
    def samples(self) -> int:
        """Responses for each prompt."""
        return int(self.args.num_generations)

    @property
    def passes(self) -> int:
        """Passes over a round."""
        return int(self.args.num_iterations)

    @property
    def asks_reference(self) -> bool:
        """Whether the divergence from the reference model has an effect."""
        return bool(self.args.beta)

    def credit(self, rollouts: Sequence[Rollout]) -> None:
        """One advantage for each response, relative to the other responses to its prompt."""
        found = self._relative([one.score for one in rollouts])
        if self.parts.rewards.cost is not None:
            multiplier = self.next_multiplier([one for one in rollouts if one.score is not None])
            costs = self._relative([None if one.score is None else one.cost for one in rollouts])
            found = advantages.safe_advantages(found, costs, multiplier)
        for one, advantage in zip(rollouts, found.flatten(), strict=True):
            one.advantages = advantage[None]

    def _relative(self, rewards: Sequence[float | None]) -> torch.Tensor:
        """Rewards in the order (prompt, sample) -> advantages (prompts, samples)."""
        known = torch.tensor([torch.nan if reward is None else reward for reward in rewards])
        groups = known.view(-1, self.samples)
        if self.args.advantage_estimator == "rloo":
            return advantages.leave_one_out(groups)
        return advantages.group_advantages(groups, self.args.scale_rewards)

    def batch(self, rollouts: Sequence[Rollout], rendered: Sequence[Rendered]) -> dict[str, Any]:
        """The inputs of the model, and what trl's loss reads of the rollouts."""
        batch: dict[str, Any] = self.data_collator.lay_out(rendered)
        mask = batch["labels"][:, 1:] != -100
        learned = torch.tensor([self._is_learned_from(one) for one in rollouts])
        tokens = sum(len(one.tokens) for one in self.rounds.values() if self._is_learned_from(one))
        of_loss = {
            "completion_mask": (mask & learned[:, None]).long(),
            "advantages": torch.cat([one.advantages for one in rollouts]),
            "old_per_token_logps": placed([one.log_probs for one in rollouts], mask),
            "num_items_in_batch": torch.tensor(float(tokens)),
        }
        if self.asks_reference:
            of_loss["ref_per_token_logps"] = placed([one.reference for one in rollouts], mask)
        return batch | {"rollouts": of_loss}

    def _is_learned_from(self, one: Rollout) -> bool:
        return one.score is not None and (one.finished or not self.args.mask_truncated_completions)

    def _prepare_inputs(self, generation_batch: dict[str, Any]) -> dict[str, Any]:
        # trl would sample here.
        return Trainer._prepare_inputs(self, generation_batch)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Trl's loss; a padded row is a prompt of one token and its completion, most of it masked."""
        of_loss = inputs.pop("rollouts")
        self._inputs = inputs
        ids, attention = self._inputs["input_ids"], self._inputs["attention_mask"]
        split = {"prompt_ids": ids[:, :1], "completion_ids": ids[:, 1:], "prompt_mask": attention[:, :1]}
        return super()._compute_loss(model, of_loss | split)

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """(Log-probabilities, entropies) of the padded rows (rows, length - 1), for trl's loss."""
        output = model(**self._inputs, use_cache=False, fused_lm_head=True)
        return output.log_probs, output.entropy, None


def _scored_elsewhere(**_: Any) -> list[float]:
    raise RuntimeError("rewards are computed by RolloutTrainer")
