"""The contract of a method: the class behind `method=<name>`, and what a run gives it.

A method is a trl trainer on the rows of this project: `class Mine(RowsTrainer, <a trl trainer>)`.
`RowsTrainer` has a default for everything except `config_class` and `collator`. docs/adding.md shows
how to write a method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from align.batches.collators import Collator
from align.batches.rendering import Renderer
from align.fast.images_once import ImageReuse
from align.fast.reference_store import StoredReference
from align.methods.rewards import Rewards
from align.rows import Row
from align.settings import RunConfig


class Method(Protocol):
    """Trains a model on rows. The result is an adapter or a model.

    The class methods check rows and settings before a model is loaded.
    """

    config_class: type
    """trl's configuration class, or a subclass: its fields are the settings under `train:`."""
    inert: dict[str, str]
    """Fields of `config_class` that have no effect here -> why. A run that sets one is rejected."""
    needs_reference: bool
    """Whether the loss needs the reference model (align/models/reference.py)."""
    passes_without_gradients: int
    """Forward passes without gradients for each one with them, if the loss needs the reference
    model: those of the reference model, and those of the policy for a baseline."""
    rewarded: bool
    """Whether the method learns from rewards (`rewards.*`, `cost.*`)."""
    storable: str | None
    """Why the reference model's log-probabilities cannot be cached (`stored_reference=true`);
    None if they can."""

    @classmethod
    def check_row(cls, row: Row) -> None:
        """Raises BadRow for a row that the method cannot train on."""
        ...

    @classmethod
    def check_rows(cls, rows: Sequence[Row]) -> None:
        """Raises UserError for rows that are valid one by one and cannot be trained on together."""
        ...

    @staticmethod
    def check_arguments(arguments: Any, config: RunConfig) -> None:
        """Raises UserError for settings that are not valid for the method.

        `arguments` is a `config_class`.
        """
        ...

    @classmethod
    def collator(cls, renderer: Renderer, arguments: Any) -> Collator:
        """Rows -> the batch that the loss reads."""
        ...

    def __init__(self, *, args: Any, data_collator: Collator, parts: RunParts, ref_model: Any = None, **of_trl: Any):
        """`parts` comes from the run; all other arguments are trl's.

        `ref_model` is a copy of the model, for full fine-tuning only.
        """
        ...

    def train(self, resume_from_checkpoint: str | None = None) -> Any:
        """Train to the last step, or until a callback stops it."""
        ...

    def taken(self) -> tuple[list[int], int]:
        """Row numbers, and supervised tokens, of the step that ended, over all processes.

        Every process must call it.
        """
        ...

    def beyond_bound(self) -> str | None:
        """Why training stops after this step; None to continue."""
        ...


class StepTimer(Protocol):
    """Times the wait for rows and the cost of forward passes (align/training/throughput.py)."""

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches; waiting for one is timed."""
        ...

    def line(self, passes: Sequence[Any]) -> dict[str, float]:
        """Fields of a log line about the passes since the last line."""
        ...


def _nothing_to_finish(_: Any) -> ImageReuse:
    return ImageReuse()


class RolloutEngine(Protocol):
    """Another program than transformers that samples the responses of a round (align/methods/rollouts/with_vllm.py)."""

    largest: float
    """The largest difference of a log-probability in the present round."""

    def sample(
        self, model: Any, renderer: Any, requests: Sequence[Any], sampling: Any, round_number: int
    ) -> Iterator[tuple[Any, Any]]:
        """(Request, response) in the order in which they finish. Raises UserError."""

    def compare(self, written: Sequence[tuple[Any, Any]], dtype: torch.dtype) -> None:
        """Compare its log-probabilities of rollouts with those of the training model. Raises UserError."""

    def close(self) -> None:
        """End it, and remove its files."""


@dataclass(frozen=True)
class RunParts:
    """Arguments that a run gives to its method, in addition to those of trl's trainer.

    All of them are optional.
    """

    finish_model: Callable[[Any], ImageReuse] = _nothing_to_finish
    """Called with the model after trl added the adapter. Makes the model ready to train, and returns
    how images may be reused."""
    timer: StepTimer | None = None
    stored_reference: StoredReference | None = None
    """The reference model's log-probabilities, cached on disk."""
    rewards: Rewards = Rewards()
    """What a method that learns from rewards maximises."""
    reward_facts: Mapping[str, Any] = field(default_factory=dict)
    """What a reward model records, so that it is used only where it fits (align/rewards/model.py)."""
    rows: Sequence[Row] = ()
    """The rows that are trained on, with all their columns."""
    held_out: Sequence[Row] = ()
    """Pairs that a reward model is not trained on."""
    samples_file: Path | None = None
    """Where a method that samples responses writes some of them."""
    rollout_engine: RolloutEngine | None = None
    """Another program than transformers that samples responses."""
