"""KTO: answers that are marked as good or bad, each compared with a baseline.

L(good) = desirable_weight   * (1 - sigmoid(beta * (r - z)))
L(bad)  = undesirable_weight * (1 - sigmoid(beta * (z - r)))
r       = log p(answer) - log p_ref(answer)
z       = max(0, mean of r over requests with an answer of another row)

log p is summed over the answer's tokens, and L is a mean over all answers of a step (Ethayarajh et
al. 2024, arXiv 2402.01306, eq. 7 and 8; trl's `kto`). The baseline z has no gradient. It estimates
KL(p || p_ref), as a mean over the whole step too. `apo_zero_unpaired` is L with z = 0 (D'Oosterlinck
et al. 2024, arXiv 2408.06266). The reference model is that of DPO: align/models/reference.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import trl
from trl.trainer.utils import disable_dropout_in_model

from align.batches.collators import MARKS, MarkedCollator, marked
from align.batches.rendering import Renderer
from align.errors import BadRow, UserError
from align.methods.sampler import shuffled
from align.methods.terms import Term, TermsLoss
from align.methods.trainer import RowsTrainer, refuse_dropout, refuse_lacking, refuse_same
from align.models.reference import asked_only
from align.rows import Row
from align.settings import RunConfig

LOSSES = ("kto", "apo_zero_unpaired")
"""All of trl's loss types."""
TEXTS = ("response", "chosen", "rejected", "harmful_response")
"""Fields of a row that may hold a marked answer."""


@dataclass
class KTOConfig(trl.KTOConfig, trl.SFTConfig):
    """trl's KTOConfig, with the fields of the trainer that computes the loss here."""

    train_sampling_strategy: str = field(
        default="random",
        metadata={"help": "random | group_by_length; the baseline does not depend on the order of rows"},
    )


def kto(
    log_ratios: torch.Tensor, part: torch.Tensor, baseline: torch.Tensor | float, config: trl.KTOConfig
) -> dict[str, Term]:
    """The terms of L above.

    `log_ratios` (answers,) is r of each answer; `part` (answers,) is an index into MARKS.
    """
    sign = 1 - 2 * part
    losses = 1 - torch.sigmoid(config.beta * sign * (log_ratios - baseline))
    weights = (config.desirable_weight, config.undesirable_weight)
    return {mark: Term(weights[i], losses[part == i], None, "answer") for i, mark in enumerate(MARKS)}


def answers_of_others(answers: Sequence[Sequence[str]], seed: int) -> list[Sequence[str]]:
    """For each row the answers of the row before it in the order of the first epoch.

    trl takes them from the row before it in the forward pass. Here they depend neither on how a
    step is divided into passes and processes, nor on the order of rows in a step.
    """
    order = shuffled(len(answers), seed)
    found: list[Sequence[str]] = [()] * len(answers)
    for before, row in zip([order[-1], *order], order, strict=False):
        found[row] = answers[before]
    return found


# trl's KTOTrainer cannot train on these rows: it rejects pairs with images, and its baseline and
# its loss are means over a forward pass. So this method has trl's SFTTrainer, with trl's KTOConfig
# and the names of its log.
class KTO(RowsTrainer, TermsLoss):
    """KTO: see the module docstring."""

    part_names = MARKS
    config_class = KTOConfig
    needs_reference = True
    passes_without_gradients = 3
    storable = None
    inert = {
        "precompute_ref_log_probs": "trl's cache ignores templates and image bytes; use stored_reference=true",
        "precompute_ref_batch_size": "stored_reference=true replaces trl's cache",
        "sync_ref_model": "the reference model is always the model that the run starts from",
        "ref_model_mixup_alpha": "the reference model is always the model that the run starts from",
        "ref_model_sync_steps": "the reference model is always the model that the run starts from",
        "neftune_noise_alpha": "the same noise would change the reference model's log-probabilities",
    }

    @staticmethod
    def check_arguments(arguments: Any, config: RunConfig) -> None:
        """Raises UserError for constants with which this loss is a different one, or none."""
        if arguments.loss_type not in LOSSES:
            raise UserError(f"train.loss_type={arguments.loss_type}: expected one of {', '.join(LOSSES)}")
        if not arguments.beta > 0:
            raise UserError(f"train.beta={arguments.beta}: expected more than 0; at 0 KTO learns nothing")
        for name in ("desirable_weight", "undesirable_weight"):
            if not getattr(arguments, name) >= 0:
                raise UserError(f"train.{name}={getattr(arguments, name)}: expected 0 or more")
        refuse_dropout(arguments, config, "KTO")

    @classmethod
    def check_row(cls, row: Row) -> None:
        """Raises BadRow for a row without an answer, or with twice the same."""
        fields = list(marked(row).values())
        if not fields:
            raise BadRow(f"row {row.id} has neither a good nor a bad answer, and KTO needs one of them", "no_answer")
        refuse_lacking(row, fields, "KTO")
        if len(fields) == 2:
            refuse_same(row, *fields)

    @classmethod
    def check_rows(cls, rows: Sequence[Row]) -> None:
        """Raises UserError unless there are good and bad answers, and two rows."""
        if len(rows) < 2:
            raise UserError("KTO needs at least two rows: its baseline joins a request with the answer of another row")
        found = {mark for row in rows for mark in marked(row)}
        for mark, columns in zip(MARKS, ("`chosen` or `response`", "`rejected` or `harmful_response`"), strict=True):
            if mark not in found:
                raise UserError(
                    f"KTO needs desirable and undesirable answers, but none of the {len(rows)} rows has an {mark} one; "
                    f"add rows with {columns}"
                )

    @staticmethod
    def collator(renderer: Renderer, arguments: Any) -> MarkedCollator:
        """The collator that makes batches of marked answers."""
        return MarkedCollator(renderer, arguments.max_length, arguments.pad_to_multiple_of)

    def __init__(self, *, args: Any, **kwargs: Any):
        # trl's SFTTrainer rejects the loss types of other trainers; its own loss is not used.
        loss_type, args.loss_type = args.loss_type, "nll"
        super().__init__(args=args, **kwargs)
        args.loss_type = loss_type
        if args.disable_dropout:
            disable_dropout_in_model(self.model)
        self.baseline: torch.Tensor | float = 0.0
        """z of the current step."""
        if loss_type == "kto":
            texts = self.train_dataset.select_columns(["id", "prompt", "role", *TEXTS])
            rows = [Row(**record) for record in texts]
            answers = [[getattr(row, field) for field in marked(row).values()] for row in rows]
            self.data_collator.others = answers_of_others(answers, self.order.seed)

    def terms(self, output: Any, part: torch.Tensor, reference: Any) -> dict[str, Term]:
        """The terms of `kto`; `reference` (answers, length - 1)."""
        log_p = output.log_probs.sum(1)
        ratios = log_p - reference.sum(1)
        for i, name in enumerate(("chosen", "rejected")):
            of_part = part == i
            self.log_means({f"logps/{name}": log_p[of_part], f"rewards/{name}": self.args.beta * ratios[of_part]})
        self._metrics["train"]["kl"].append(float(self.baseline))
        return kto(ratios, part, self.baseline, self.args)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The reference model reads what the model reads. Outside a step the baseline is the batch's own."""
        if "mismatched" in inputs:
            self.baseline = self._baseline([inputs.pop("mismatched")])
        of_the_rows = ("row_index", "supervised_tokens", "part", "reference")
        shared = {key: value for key, value in inputs.items() if key not in of_the_rows}
        inputs.pop("answer_keys", None)
        return super().compute_loss(model, inputs | {"reference": shared}, *args, **kwargs)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        # Called once per step, before its first forward pass: the baseline is a mean over all of them.
        if self.data_collator.others:
            self.baseline = self._baseline([batch.pop("mismatched") for batch in batch_samples])
        return super()._get_num_items_in_batch(batch_samples, device)

    def _baseline(self, batches: Sequence[dict[str, Any]]) -> torch.Tensor:
        """z: the mean of r over these batches on all processes, at least 0."""
        model, total = self.accelerator.unwrap_model(self.model), torch.zeros(2, device=self.accelerator.device)
        with self.compute_loss_context_manager(), asked_only(model):
            for batch in map(self._prepare_inputs, batches):
                reference = self.ask_reference(dict(batch))
                batch.pop("answer_keys", None)
                log_probs = model(**batch, use_cache=False, fused_lm_head=True).log_probs
                total += torch.stack([(log_probs - reference).sum(), total.new_tensor(len(log_probs))])
        sums, count = self.accelerator.reduce(total, "sum")
        return (sums / count).clamp(min=0)
