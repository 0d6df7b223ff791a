"""PPO: proximal policy optimisation with a critic, for LoRA on one base model.

    r_t      = -kl_coef * (log p(a_t) - log p_ref(a_t)) + [t = last] * reward
    A_t, G_t = generalised advantage estimation of r_t and the critic's values (gamma, lam)
    L = mean over tokens of max(-A_t * rho_t, -A_t * clip(rho_t, 1 - cliprange, 1 + cliprange))
      + vf_coef * 0.5 * mean over tokens of max((V_t - G_t)^2, (V_old + clip(V_t - V_old) - G_t)^2)
      + sft_coef * NLL(the row's own response)

Means are over the answer tokens of the whole optimizer step (Schulman et al. 2017, arXiv 1707.06347;
Ouyang et al. 2022, arXiv 2203.02155; the constants of SPA-VL's script, arXiv 2406.12030).

Policy, critic, reward model and reference model share one base: policy and critic are trained
adapters, the reward model is a frozen adapter, the reference model is the base alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from trl import SFTConfig
from trl.trainer.utils import add_fused_lm_head

from align.batches.collators import Prompts
from align.batches.rendered import Rendered
from align.batches.rendering import Renderer
from align.errors import UserError
from align.methods.rollouts import advantages
from align.methods.rollouts.rollout import Rollout
from align.methods.rollouts.scoring import placed
from align.methods.rollouts.settings import INERT, RolloutSettings, check_rollouts, plan_of
from align.methods.rollouts.trainer import CRITIC, RolloutTrainer
from align.methods.terms import Term, TermsLoss
from align.models.adapters import POLICY
from align.models.scalar_head import add_adapter_with_head, new_head, parameters_of, set_trainable
from align.settings import RunConfig

CRITIC_FILE = "critic.safetensors"
PARTS = ("rollout", "unscored", "sft")
"""The parts of a batch: responses that are learned from, responses without a reward, and the rows'
own responses."""


@dataclass
class PPOConfig(RolloutSettings, SFTConfig):
    """trl's SFTConfig, plus the constants of PPO under the names of trl's last PPOConfig (1.12)."""

    num_ppo_epochs: int = field(default=1, metadata={"help": "passes over a round of rollouts"})
    generation_batch_size: int | None = field(
        default=None, metadata={"help": "rollouts of a round, over all processes (default: global_batch_size)"}
    )
    max_completion_length: int = field(default=256, metadata={"help": "maximum number of tokens of a response"})
    temperature: float = field(default=1.0, metadata={"help": "temperature of sampling"})
    top_p: float = field(default=1.0, metadata={"help": "share of the probability that is sampled from"})
    top_k: int = field(default=0, metadata={"help": "number of tokens that are sampled from; 0: all"})
    kl_coef: float = field(default=0.1, metadata={"help": "weight of the divergence in the reward of a token"})
    gamma: float = field(default=1.0, metadata={"help": "discount of later rewards"})
    lam: float = field(default=1.0, metadata={"help": "lambda of generalised advantage estimation"})
    cliprange: float = field(default=0.2, metadata={"help": "bound on the policy's ratio, around 1"})
    cliprange_value: float = field(default=0.2, metadata={"help": "bound on the change of a value"})
    vf_coef: float = field(default=0.1, metadata={"help": "weight of the critic's loss"})
    score_clip: float | None = field(default=None, metadata={"help": "bound on the absolute value of a reward"})
    whiten_rewards: bool = field(
        default=False, metadata={"help": "divide the rewards of a round's tokens by their standard deviation"}
    )
    whiten_advantages: bool = field(
        default=False, metadata={"help": "give the advantages of a round's tokens mean 0 and variance 1"}
    )
    sft_coef: float = field(
        default=0.0, metadata={"help": "weight of the negative log-likelihood of the rows' own responses"}
    )
    critic_learning_rate: float | None = field(
        default=None, metadata={"help": "learning rate of the critic (default: learning_rate)"}
    )


class PPO(RolloutTrainer, TermsLoss):
    """Proximal policy optimisation: see the module docstring."""

    config_class: type = PPOConfig
    part_names = PARTS
    inert = INERT
    storable = "the responses of a run are new in every round"
    critic = CRITIC

    @staticmethod
    def check_arguments(arguments: Any, config: RunConfig) -> None:
        """Raises UserError for settings with which PPO learns nothing or cannot sample."""
        check_rollouts(arguments, config)
        plan_of(arguments, config.global_batch_size, 1, arguments.num_ppo_epochs)
        expected = {
            "num_ppo_epochs": "at least 1" if arguments.num_ppo_epochs < 1 else None,
            "kl_coef": "at least 0" if arguments.kl_coef < 0 else None,
            "cliprange": None if arguments.cliprange > 0 else "more than 0",
            "cliprange_value": None if arguments.cliprange_value > 0 else "more than 0",
        }
        for name, said in expected.items():
            if said:
                raise UserError(f"train.{name}={getattr(arguments, name)}: expected {said}")

        if arguments.sft_coef and arguments.temperature != 1:
            raise UserError(
                f"train.sft_coef={arguments.sft_coef} with train.temperature={arguments.temperature}: the likelihood of "
                "the rows' own responses would be that of a policy at this temperature; set one of the two to its default"
            )

    def _add_critic(self, model: Any) -> None:
        """A critic that begins as a copy of the reward model, or without one, as a new adapter.

        SPA-VL's begins from the reward model too.
        """
        outputs = 1 if self.parts.rewards.cost is None else 2
        folders = [reward.folder for reward in self.parts.rewards.terms if reward.folder is not None]
        if folders and outputs == 1:
            head = add_adapter_with_head(model, CRITIC, folders[0], trainable=True)
        else:
            model.add_adapter(CRITIC, model.peft_config[POLICY])
            head = new_head(model, CRITIC, self.args.seed, outputs)
            set_trainable(model, CRITIC, True)
        self._register(CRITIC, head)

    @classmethod
    def collator(cls, renderer: Renderer, arguments: Any) -> Prompts:
        """The collator of prompts; with `sft_coef`, the rows' own responses are checked too."""
        prompts = super().collator(renderer, arguments)
        prompts.answers = ("response",) if arguments.sft_coef else ()
        return prompts

    def prepare_head(self, model: Any) -> None:
        """Divide the logits by the temperature of sampling, as trl's GRPO does: that is the policy that acts."""
        if self.args.temperature != 1:
            add_fused_lm_head(model, temperature=self.args.temperature, outputs=("log_probs", "entropy", "is_top1"))

    @property
    def passes(self) -> int:
        """Passes over a round."""
        return int(self.args.num_ppo_epochs)

    @property
    def asks_reference(self) -> bool:
        """Whether the divergence from the reference model has an effect."""
        return bool(self.args.kl_coef) or self.args.max_kl is not None

    def credit(self, rollouts: Sequence[Rollout]) -> None:
        """Generalised advantage estimation over the tokens of each response with a reward."""
        args, scored = self.args, [one for one in rollouts if one.score is not None]
        for one in rollouts:
            one.advantages = one.returns = torch.zeros(len(one.tokens))
            one.cost_returns = torch.zeros(len(one.tokens) if len(one.cost_values) else 0)
        per_token = [self._rewards(one) for one in scored]
        if args.whiten_rewards:
            white = advantages.whitened(torch.cat(per_token), keep_mean=True)
            per_token = list(white.split([len(one) for one in per_token]))
        for one, rewards in zip(scored, per_token, strict=True):
            one.advantages, one.returns = advantages.advantages_of(rewards, one.values, args.gamma, args.lam)
        if self.parts.rewards.cost is not None:
            self._with_cost(scored)
        if args.whiten_advantages:
            white = advantages.whitened(torch.cat([one.advantages for one in scored]))
            for one, found in zip(scored, white.split([len(one.tokens) for one in scored]), strict=True):
                one.advantages = found

    def _rewards(self, one: Rollout) -> torch.Tensor:
        score, bound = float(one.score or 0.0), self.args.score_clip
        if bound is not None:
            score = max(-bound, min(bound, score))
        reference = one.reference if len(one.reference) else one.log_probs
        return advantages.kl_rewards(one.log_probs, reference, score, self.args.kl_coef)

    def _with_cost(self, scored: Sequence[Rollout]) -> None:
        """Safe RLHF: advantages of reward and cost together."""
        multiplier = self.next_multiplier(scored)
        for one in scored:
            costs = torch.zeros(len(one.tokens))
            costs[-1] = float(one.cost or 0.0)
            of_cost, one.cost_returns = advantages.advantages_of(costs, one.cost_values, self.args.gamma, self.args.lam)
            one.advantages = advantages.safe_advantages(one.advantages, of_cost, multiplier)

    def batch(self, rollouts: Sequence[Rollout], rendered: Sequence[Rendered]) -> dict[str, Any]:
        """Rollouts, then their rows' own responses if they are trained on too (`sft_coef`)."""
        parts = [PARTS.index("rollout" if one.score is not None else "unscored") for one in rollouts]
        own = self._own_responses(rollouts) if self.args.sft_coef else []
        batch: dict[str, Any] = self.data_collator.lay_out([*rendered, *own])
        mask = batch["labels"][: len(rollouts), 1:] != -100
        names = {"old": "log_probs", "advantages": "advantages", "values": "values", "returns": "returns"}
        if self.parts.rewards.cost is not None:
            names |= {"cost_values": "cost_values", "cost_returns": "cost_returns"}
        batch["rollouts"] = {key: placed([getattr(one, name) for one in rollouts], mask) for key, name in names.items()}
        return batch | {"part": torch.tensor(parts + [PARTS.index("sft")] * len(own))}

    def _own_responses(self, rollouts: Sequence[Rollout]) -> list[Rendered]:
        rows = [self.row(one.row) for one in rollouts]
        return [self.data_collator.renderer.render(row, row.response) for row in rows]

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The weighted sum of the policy's, the critic's and the supervised term."""
        self._of_rollouts = inputs.pop("rollouts")
        return super().compute_loss(model, inputs | {"scalar": CRITIC}, *args, **kwargs)

    def terms(self, output: Any, part: torch.Tensor, reference: torch.Tensor | None) -> dict[str, Term]:
        """The terms of L above."""
        args, old = self.args, self._of_rollouts
        mine = (part == PARTS.index("rollout"))[: len(old["old"])]
        rows = mine.nonzero()[:, 0]
        mask = output.label_mask[rows]
        losses, clipped = advantages.policy_losses(
            output.log_probs[rows], old["old"][rows], old["advantages"][rows], args.cliprange
        )
        values = output.scalars[rows]
        of_values = advantages.value_losses(
            values[..., 0], old["values"][rows], old["returns"][rows], args.cliprange_value
        )
        if "cost_values" in old:
            of_values = of_values + advantages.value_losses(
                values[..., 1], old["cost_values"][rows], old["cost_returns"][rows], args.cliprange_value
            )
        self._log_clipping(clipped, mask)
        found = {
            "policy": Term(1.0, losses * mask, "rollout", "token"),
            "value": Term(args.vf_coef, of_values * mask, "rollout", "token"),
        }
        if args.sft_coef:
            nll = -output.log_probs[part == PARTS.index("sft")]
            found["sft"] = Term(args.sft_coef, nll, "sft", "token")
        return found

    def _log_clipping(self, clipped: torch.Tensor, mask: torch.Tensor) -> None:
        counts = torch.stack([(clipped & mask).sum(), mask.sum()]).float()
        among, tokens = self.accelerator.reduce(counts, "sum").tolist()
        self._metrics["train"]["clip_ratio/region_mean"].append(among / max(tokens, 1.0))

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The optimizer; the critic may have a learning rate of its own."""
        optimizer = super().create_optimizer(*args, **kwargs)
        rate = self.args.critic_learning_rate
        if rate is None:
            return optimizer
        critic = {id(p) for p in parameters_of(self.accelerator.unwrap_model(self.model), CRITIC).values()}
        groups = list(optimizer.param_groups)
        for group in groups:
            mine = [p for p in group["params"] if id(p) in critic]
            group["params"] = [p for p in group["params"] if id(p) not in critic]
            if mine:
                optimizer.param_groups.append(group | {"params": mine, "lr": rate})
        return optimizer

    def save_state(self, folder: Path) -> None:
        """Save the critic in a checkpoint, next to the policy's adapter."""
        super().save_state(folder)
        if self.accelerator.is_main_process:
            critic = parameters_of(self.accelerator.unwrap_model(self.model), CRITIC)
            save_file({name: p.detach().cpu().contiguous() for name, p in critic.items()}, folder / CRITIC_FILE)

    def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(checkpoint, model)
        model = self.accelerator.unwrap_model(self.model)
        saved = load_file(Path(checkpoint, CRITIC_FILE))
        with torch.no_grad():
            for name, parameter in parameters_of(model, CRITIC).items():
                parameter.copy_(saved[name])
        set_trainable(model, CRITIC, True)
