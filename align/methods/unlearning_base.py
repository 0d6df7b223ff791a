"""Methods on three parts: harmful answers, safe answers to the same requests, benign answers.

A method is a pure function that names its terms (align/methods/terms.py). One forward pass computes
all parts. The reference model computes one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trl import SFTConfig

from align.batches.parts import PARTS, PartsCollator
from align.batches.rendering import Renderer
from align.errors import UserError
from align.methods.sampler import InProportion
from align.methods.terms import TermsLoss
from align.methods.trainer import RowsTrainer, refuse_lacking, refuse_same
from align.rows import ROLES, Row
from align.settings import RunConfig


@dataclass
class PartsConfig(SFTConfig):
    """trl's SFTConfig, plus the settings that all methods with parts share."""

    proportion: list[int] = field(
        default_factory=lambda: [1, 1],
        metadata={"help": "numbers of harmful and benign rows in each group; a forward pass holds whole groups"},
    )


class PartsTrainer(RowsTrainer, TermsLoss):
    """trl's SFTTrainer with rows in a fixed proportion and a loss of named terms.

    A method is a subclass with its `terms`.
    """

    part_names = PARTS

    config_class: type = PartsConfig
    needs_reference = True
    inert = {
        "loss_type": "the loss is the method's own",
        "neftune_noise_alpha": "the same noise would change the reference model's log-probabilities",
    }
    reference_part = ""
    """The part of the batch that the reference model computes."""

    @staticmethod
    def check_arguments(arguments: Any, config: RunConfig) -> None:
        """Raises UserError for a proportion that is not valid, or does not fit a forward pass."""
        proportion, batch = arguments.proportion, arguments.per_device_train_batch_size
        if len(proportion) != 2 or min(proportion) < 1:
            raise UserError(
                f"train.proportion={proportion}: expected two numbers of rows, harmful and benign, each at least 1"
            )
        if batch % sum(proportion):
            raise UserError(
                f"a forward pass of {batch} rows (train.per_device_train_batch_size; by default a process's share of "
                f"global_batch_size={config.global_batch_size}) must be a multiple of {sum(proportion)}: each pass "
                f"holds harmful and benign rows {':'.join(map(str, proportion))} (train.proportion)"
            )

    @classmethod
    def check_row(cls, row: Row) -> None:
        """Raises BadRow for a row that this method cannot train on."""
        if row.role == "benign":
            refuse_lacking(row, ["response"], "unlearning of benign rows")
            return
        refuse_lacking(row, ["harmful_response", "response"], "unlearning of harmful rows")
        refuse_same(row, "response", "harmful_response")  # a generated harmful answer may also be a refusal

    @classmethod
    def check_rows(cls, rows: Sequence[Row]) -> None:
        """Raises UserError unless there are harmful and benign rows."""
        for role in ROLES:
            if not any(row.role == role for row in rows):
                first = ", ".join(row.id for row in rows[:5])
                raise UserError(
                    f"unlearning needs harmful and benign rows, but none of the {len(rows)} rows is {role}: {first}, "
                    f"...; add a part with such rows, or set the role of a part: data.<part>.role={role}"
                )

    @classmethod
    def collator(cls, renderer: Renderer, arguments: Any) -> PartsCollator:
        """The collator that makes batches with their parts."""
        return PartsCollator(renderer, arguments.max_length, arguments.pad_to_multiple_of, cls.reference_part)

    def _order(self, global_batch_size: int, seed: int) -> InProportion:
        roles = self.train_dataset["role"]
        strata = [[i for i, role in enumerate(roles) if role == name] for name in ("harmful", "benign")]
        return InProportion(strata, self.args.proportion, global_batch_size, seed, lambda: self.state.global_step)
