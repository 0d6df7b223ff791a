"""A loss of named terms, normalised over the whole step. Each term is logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl import SFTTrainer
from trl.models.utils import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import add_fused_lm_head

from align.batches.padding import IGNORED
from align.methods.method import RunParts
from align.models.reference import reference_of


@dataclass
class Term:
    """A loss term: weight * sum(values) / number of its part's tokens, or answers, in the step.

    A term without a part is a mean over all parts.
    """

    weight: float
    values: torch.Tensor
    part: str | None
    per: str
    """token | answer"""


class TermsLoss(SFTTrainer):
    """trl's SFTTrainer with a loss of named terms, each a mean over its part of the whole step.

    A method is a subclass `class Mine(RowsTrainer, TermsLoss)` with its `part_names` and `terms`.
    """

    part_names: tuple[str, ...]
    """The parts of a batch; `part` (answers,) in it is an index into them."""
    head: Any
    parts: RunParts

    def __init__(self, *args: Any, ref_model: Any = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if ref_model is not None:
            add_fused_lm_head(ref_model)
            ref_model = self._prepared(ref_model)
        self.ref_model = ref_model
        self.step_terms: dict[str, float] = {}
        """The terms, without their weights, of the current optimizer step so far; the same on
        every process."""

    def terms(self, output: Any, part: torch.Tensor, reference: torch.Tensor | None) -> dict[str, Term]:
        """The method's terms by name.

        `output` is trl's fused output over all answers: `log_probs` and `label_mask` (answers,
        length - 1), log_probs 0 where nothing is supervised. `part` (answers,); `reference` is what
        `ask_reference` returns, None for a method without a reference model.
        """
        raise NotImplementedError

    def _prepared(self, ref_model: Any) -> Any:
        """A separate reference model, prepared for the launcher as trl's DPOTrainer prepares it."""
        if self.is_deepspeed_enabled:
            return prepare_deepspeed(ref_model, self.accelerator)
        if self.is_fsdp_enabled:
            return prepare_fsdp(ref_model, self.accelerator)
        return self.accelerator.prepare_model(ref_model, evaluation_mode=True)

    def ask_reference(self, batch: dict[str, Any]) -> torch.Tensor:
        """The reference model's output that the method needs.

        By default log-probabilities (answers of its part, length - 1); a method may override it.
        """
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
        """The weighted sum of the terms.

        Each is a mean over the whole step: its accumulated passes and all processes.
        """
        part = inputs.pop("part")
        reference = self.ask_reference(inputs.pop("reference")) if "reference" in inputs else None
        output = self.forward(model, inputs)
        terms = self.terms(output, part, reference)
        alone = num_items_in_batch is None
        counts = counts_of(inputs["labels"], part, len(self.part_names)) if alone else num_items_in_batch
        # The counts are over all processes, but DDP averages gradients, so each process scales its
        # share up.
        processes = 1 if alone else self.accelerator.num_processes
        means = torch.stack(
            [
                term.values.sum() / count_of(counts, term, self.part_names).clamp(min=1) * processes
                for term in terms.values()
            ]
        )
        weights = means.new_tensor([term.weight for term in terms.values()])
        passes = 1 if alone else self.current_gradient_accumulation_steps
        self._record(dict(zip(terms, self.accelerator.reduce(means.detach(), "mean").tolist(), strict=True)), passes)
        self.log_metrics(output, inputs)
        loss = (weights * means).sum()
        return (loss, output) if return_outputs else loss

    def forward(self, model: Any, inputs: dict[str, Any]) -> Any:
        """The model's output that `terms` reads."""
        return model(**inputs, use_cache=False, fused_lm_head=True)

    def log_metrics(self, output: Any, inputs: dict[str, Any]) -> None:
        """Log metrics of a forward pass; by default those of trl's SFTTrainer."""
        super().compute_loss(lambda **_: output, inputs)

    def log_means(self, values: dict[str, torch.Tensor]) -> None:
        """Log the mean of each tensor (answers,) over the pass on all processes, under its name."""
        sums = [torch.stack([it.detach().sum(), it.new_tensor(len(it))]) for it in values.values()]
        for name, (total, count) in zip(
            values, self.accelerator.reduce(torch.stack(sums), "sum").tolist(), strict=True
        ):
            if count:
                self._metrics["train"][name].append(total / count)

    def _record(self, means: dict[str, float], passes: int) -> None:
        """Record the terms.

        The log line averages over passes, so each pass's share is scaled up.
        """
        for name, mean in means.items():
            self._metrics["train"][f"loss/{name}"].append(mean * passes)
            self.step_terms[name] = self.step_terms.get(name, 0.0) + mean

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        self.step_terms = {}  # transformers calls this once per step, before its first forward pass
        counts = sum(counts_of(batch["labels"], batch["part"], len(self.part_names)) for batch in batch_samples)
        return self.accelerator.reduce(torch.as_tensor(counts, device=device), "sum")


def counts_of(labels: torch.Tensor, part: torch.Tensor, parts: int) -> torch.Tensor:
    """(2, parts): supervised tokens, and answers, of each part."""
    tokens = (labels[:, 1:] != IGNORED).sum(1)
    of_part = torch.nn.functional.one_hot(part, parts)
    return torch.stack([(of_part * tokens[:, None]).sum(0), of_part.sum(0)]).float()


def count_of(counts: torch.Tensor, term: Term, part_names: Sequence[str]) -> torch.Tensor:
    """Number of tokens, or answers, that a term is a mean over."""
    of_parts = counts[("token", "answer").index(term.per)]
    return of_parts.sum() if term.part is None else of_parts[part_names.index(term.part)]
