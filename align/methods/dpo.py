"""Direct preference optimisation: trl's DPOTrainer over our rows.

L = -log sigmoid(beta * [(log p(chosen) - log p_ref(chosen)) - (log p(rejected) - log p_ref(rejected))])

log p is summed over the answer's tokens, and L is a mean over pairs (Rafailov et al. 2023, eq. 7;
trl's `sigmoid`). The reference model is the model that the run starts from:
align/models/reference.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from trl import DPOConfig, DPOTrainer

from align.batches.collators import PreferenceCollator
from align.batches.padding import IGNORED
from align.batches.rendering import Renderer
from align.errors import UserError
from align.methods.trainer import RowsTrainer, refuse_dropout, refuse_lacking, refuse_same
from align.models.reference import reference_of
from align.rows import Row
from align.settings import RunConfig

SORTING = ("aot", "aot_unpaired")
"""trl's losses that compare the pairs of a forward pass with each other."""
LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "apo_zero", "apo_down"),
    *("discopop", "sft", "sigmoid_norm"),
    *SORTING,
)
"""All of trl's loss types."""


class DPO(RowsTrainer, DPOTrainer):
    """trl's DPO with all its loss types. `sft` is a mean over the chosen tokens of the whole step.

    trl's own `sft` is a mean over each forward pass. Gradient accumulation, or a different number
    of processes, would then change the weights of long and short answers, and so the experiment.
    """

    config_class = DPOConfig
    needs_reference = True
    storable = None
    inert = {
        "precompute_ref_log_probs": "trl's cache ignores templates and image bytes; use stored_reference=true",
        "precompute_ref_batch_size": "stored_reference=true replaces trl's cache",
        "sync_ref_model": "the reference model is always the model that the run starts from",
        "neftune_noise_alpha": "the same noise would change the reference model's log-probabilities",
    }

    @staticmethod
    def check_arguments(arguments: Any, config: RunConfig) -> None:
        """Raises UserError for losses that are not valid, and for dropout that trl switches off."""
        if not arguments.beta > 0:
            raise UserError(
                f"train.beta={arguments.beta}: expected more than 0; at 0 DPO learns nothing, and below 0 it prefers "
                "the rejected answers"
            )
        losses = arguments.loss_type
        if unknown := [name for name in losses if name not in LOSSES]:
            raise UserError(f"train.loss_type: {unknown[0]!r} is unknown; expected one of {', '.join(LOSSES)}")
        if twice := [name for name in losses if losses.count(name) > 1]:
            raise UserError(f"train.loss_type: {twice[0]} is given twice; give it once, with the sum of its weights")
        if losses == ["sft"]:
            raise UserError("train.loss_type: sft alone is method=sft; add a preference loss, or use method=sft")
        whole = arguments.per_device_train_batch_size == config.global_batch_size
        if not whole and (sorting := [name for name in losses if name in SORTING]):
            raise UserError(
                f"train.loss_type: {sorting[0]} sorts the pairs of a forward pass, so splitting a step of "
                f"{config.global_batch_size} pairs into passes of {arguments.per_device_train_batch_size} would "
                "change the experiment; use one process, and set train.per_device_train_batch_size to "
                "global_batch_size"
            )
        if config.stored_reference and arguments.ld_alpha is not None:
            raise UserError(
                "stored_reference=true cannot be used with train.ld_alpha, which also weights the reference model's "
                "tokens; remove one of the two"
            )
        refuse_dropout(arguments, config, "DPO")

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        weights: dict[str, float] = dict(zip(self.loss_types, self.loss_weights, strict=True))  # type: ignore[has-type]
        self.sft_weight = weights.pop("sft", 0.0)
        self.loss_types, self.loss_weights = list(weights), list(weights.values())

    @classmethod
    def check_row(cls, row: Row) -> None:
        """Raises BadRow for a row that this method cannot train on."""
        refuse_lacking(row, ["chosen", "rejected"], "DPO")
        refuse_same(row, "chosen", "rejected")

    @staticmethod
    def collator(renderer: Renderer, arguments: Any) -> PreferenceCollator:
        """The collator that makes batches of pairs."""
        return PreferenceCollator(renderer, arguments.max_length, arguments.pad_to_multiple_of)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        """Chosen tokens of the whole step, over accumulation and processes."""
        count = sum(mask.chunk(2)[0].sum() for mask in (batch["completion_mask"] for batch in batch_samples))
        return self.accelerator.reduce(torch.as_tensor(count, device=device), "sum")

    def _reference(self, inputs: dict[str, Any], keys: Sequence[str]) -> dict[str, torch.Tensor]:
        """The reference model's log-probabilities of whole answers (pairs,), under trl's keys."""
        supervised = inputs["completion_mask"] == 1

        def ask() -> torch.Tensor:
            labels = inputs["input_ids"].masked_fill(~supervised, IGNORED)
            batch = {key: value for key, value in inputs.items() if key != "completion_mask"}
            with reference_of(self.accelerator.unwrap_model(self.model), self.ref_model) as reference:
                return reference(**batch, labels=labels, use_cache=False, fused_lm_head=True).log_probs

        assert self.parts.stored_reference is not None
        self.precompute_ref_logps = True
        chosen, rejected = self.parts.stored_reference.log_probs(keys, supervised[:, 1:], ask).sum(1).chunk(2)
        return {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Add to trl's loss the weighted negative log-likelihood of the chosen answers."""
        policy: dict[str, Any] = {}
        if self.parts.stored_reference is not None:
            inputs |= self._reference(inputs, inputs.pop("answer_keys"))

        def forward(**batch: Any) -> Any:  # trl calls this for the policy only, never for the reference model
            policy["output"] = model(**batch)
            return policy["output"]

        loss = super().compute_loss(forward, inputs, *args, **kwargs)
        if not self.sft_weight:
            return loss
        chosen = inputs["completion_mask"][:, 1:].chunk(2)[0]
        total = -(policy["output"].log_probs.chunk(2)[0] * chosen).sum()
        items = kwargs.get("num_items_in_batch")
        # The trainer divides by the forward passes of a step and DDP averages over processes: undo
        # both, since this is a sum.
        passes = self.current_gradient_accumulation_steps * self.accelerator.num_processes if items is not None else 1
        nll = total / (chosen.sum() if items is None else items) * passes
        self._metrics["train"]["loss/sft"].append(self.accelerator.reduce(nll.detach(), "mean").item())
        return loss + self.sft_weight * nll
