"""Methods whose batch has parts: harmful answers to be forgotten, safe answers to the same requests, and answers to benign ones.

A method is a pure function that names its terms. This trainer gives it one forward pass over all parts and asks a reference about one
of them; it divides each term by what the whole step holds of its part, and logs each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from trl import SFTConfig, SFTTrainer
from trl.models.utils import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import add_fused_lm_head

from align.batches.collators import PARTS, PartsCollator
from align.batches.padding import IGNORED
from align.batches.rendering import Renderer
from align.errors import UserError
from align.methods.method import RunParts
from align.methods.sampler import InProportion
from align.methods.trainer import RowsTrainer, refuse_lacking, refuse_same
from align.models.reference import reference_of
from align.rows import ROLES, Row
from align.settings import RunConfig


@dataclass
class Term:
    """One term of a loss: weight * sum(values) / how many tokens, or answers, of its part the whole step holds."""

    weight: float
    values: torch.Tensor
    part: str
    per: str
    """token | answer"""


@dataclass
class PartsConfig(SFTConfig):
    """What methods with parts have in common; the other fields are those of trl's SFTConfig."""

    proportion: list[int] = field(
        default_factory=lambda: [1, 1],
        metadata={"help": "harmful rows to benign rows, the same in every forward pass on every process"},
    )


class _PartsLoss(SFTTrainer):
    """trl's SFTTrainer with the loss of a method: see `PartsTrainer`."""

    head: Any
    parts: RunParts

    def __init__(self, *args: Any, ref_model: Any = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if ref_model is not None:
            add_fused_lm_head(ref_model)
            ref_model = self._prepared(ref_model)
        self.ref_model = ref_model
        self.step_terms: dict[str, float] = {}
        """The terms, without their weights, of the current optimizer step so far; the same on every process."""

    def terms(self, output: Any, reference: torch.Tensor, part: torch.Tensor) -> dict[str, Term]:
        """The method's terms by name, of trl's fused output over all answers, `part` (answers,), and what the reference said."""
        raise NotImplementedError

    def _prepared(self, ref_model: Any) -> Any:
        """A reference of its own as the launcher wants it, as trl's DPOTrainer does it."""
        if self.is_deepspeed_enabled:
            return prepare_deepspeed(ref_model, self.accelerator)
        if self.is_fsdp_enabled:
            return prepare_fsdp(ref_model, self.accelerator)
        return self.accelerator.prepare_model(ref_model, evaluation_mode=True)

    def ask_reference(self, batch: dict[str, Any]) -> torch.Tensor:
        """What the method needs of the reference: log-probabilities (answers of its part, length - 1), unless it says otherwise."""
        keys = batch.pop("answer_keys", None)

        def ask() -> torch.Tensor:
            with reference_of(self.accelerator.unwrap_model(self.model), self.ref_model) as reference:
                return reference(**batch, use_cache=False, fused_lm_head=True).log_probs

        if self.parts.stored_reference is None:
            return ask()
        return self.parts.stored_reference.log_probs(keys, batch["labels"][:, 1:] != IGNORED, ask)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The weighted sum of the method's terms, each a mean over the whole step, over accumulation and processes."""
        part = inputs.pop("part")
        reference = self.ask_reference(inputs.pop("reference"))
        output = model(**inputs, use_cache=False, fused_lm_head=True)
        terms = self.terms(output, reference, part)
        alone = num_items_in_batch is None
        counts = counts_of(inputs["labels"], part) if alone else num_items_in_batch
        # The counts are of all processes, and DDP averages their gradients.
        processes = 1 if alone else self.accelerator.num_processes
        means = torch.stack([term.values.sum() / count_of(counts, term) * processes for term in terms.values()])
        weights = means.new_tensor([term.weight for term in terms.values()])
        passes = 1 if alone else self.current_gradient_accumulation_steps
        self._record(dict(zip(terms, self.accelerator.reduce(means.detach(), "mean").tolist(), strict=True)), passes)
        super().compute_loss(lambda **_: output, inputs)  # for what trl logs of every run
        loss = (weights * means).sum()
        return (loss, output) if return_outputs else loss

    def _record(self, means: dict[str, float], passes: int) -> None:
        """Each of a step's passes holds its share of the mean; the log line averages over passes, so shares are scaled up."""
        for name, mean in means.items():
            self._metrics["train"][f"loss/{name}"].append(mean * passes)
            self.step_terms[name] = self.step_terms.get(name, 0.0) + mean

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        self.step_terms = {}  # asked once, before the first forward pass of a step
        counts = sum(counts_of(batch["labels"], batch["part"]) for batch in batch_samples)
        return self.accelerator.reduce(torch.as_tensor(counts, device=device), "sum")


class PartsTrainer(RowsTrainer, _PartsLoss):
    """trl's SFTTrainer, our rows in fixed proportion, and a loss of named terms. A method is a subclass with its `terms`."""

    config_class: type = PartsConfig
    needs_reference = True
    inert = {
        "loss_type": "the loss is the method's own",
        "neftune_noise_alpha": "the reference would be asked through the same noise",
    }
    reference_part = ""
    """The part of the batch that the reference is asked about."""

    @staticmethod
    def check_arguments(arguments: Any, config: RunConfig) -> None:
        """Raises UserError for a proportion that cannot be, or that forward passes cannot hold."""
        proportion, batch = arguments.proportion, arguments.per_device_train_batch_size
        if len(proportion) != 2 or min(proportion) < 1:
            raise UserError(f"train.proportion={proportion}: expected two numbers of rows, harmful and benign, from 1")
        if batch % sum(proportion):
            raise UserError(
                f"a forward pass of {batch} rows (train.per_device_train_batch_size, or else a process's share of global_batch_size="
                f"{config.global_batch_size}) must be a multiple of {sum(proportion)}: each holds harmful and benign rows "
                f"{':'.join(map(str, proportion))} (train.proportion)"
            )

    @classmethod
    def check_row(cls, row: Row) -> None:
        """Raises BadRow for a row that this method cannot train on."""
        if row.role == "benign":
            refuse_lacking(row, ["response"], "unlearning of benign rows")
            return
        refuse_lacking(row, ["harmful_response", "response"], "unlearning of harmful rows")
        refuse_same(row, "response", "harmful_response")  # a model that refuses has no harmful answer to give

    @classmethod
    def check_rows(cls, rows: Sequence[Row]) -> None:
        """Raises UserError unless there are harmful and benign rows."""
        for role in ROLES:
            if not any(row.role == role for row in rows):
                first = ", ".join(row.id for row in rows[:5])
                raise UserError(
                    f"unlearning needs harmful and benign rows, and none of the {len(rows)} rows is {role}: {first}, ...; "
                    f"add a part, or give its role: data.<part>.role={role}"
                )

    @classmethod
    def collator(cls, renderer: Renderer, arguments: Any) -> PartsCollator:
        """What makes batches of rows with their parts."""
        return PartsCollator(renderer, arguments.max_length, arguments.pad_to_multiple_of, cls.reference_part)

    def _order(self, global_batch_size: int, seed: int) -> InProportion:
        roles = self.train_dataset["role"]
        strata = [[i for i, role in enumerate(roles) if role == name] for name in ("harmful", "benign")]
        return InProportion(strata, self.args.proportion, global_batch_size, seed, lambda: self.state.global_step)


def counts_of(labels: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """(2, parts): supervised tokens, and answers, of each part."""
    tokens = (labels[:, 1:] != IGNORED).sum(1)
    of_part = torch.nn.functional.one_hot(part, len(PARTS))
    return torch.stack([(of_part * tokens[:, None]).sum(0), of_part.sum(0)]).float()


def count_of(counts: torch.Tensor, term: Term) -> torch.Tensor:
    """What a term is a mean over."""
    return counts[("token", "answer").index(term.per), PARTS.index(term.part)]
