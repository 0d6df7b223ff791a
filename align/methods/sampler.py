"""The order in which rows are trained on.

It depends on the seed and the global batch, not on the number of processes.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch


class WholeBatches(torch.utils.data.Sampler[int]):
    """Row numbers, epoch by epoch, shuffled with seed + epoch as in accelerate's own sampler.

    If the rows do not fill the last batch of an epoch, rows from the start of that epoch's order
    fill it. Otherwise a single process would take a smaller last step, while several processes
    would fill it (accelerate's `even_batches`), and the number of processes would change the
    experiment.

    The epoch is computed from the number of optimizer steps taken (`step`), not set by `set_epoch`:
    in a run that resumes on several processes, accelerate's wrappers do not pass that call on.
    """

    lengths: Sequence[Any] | None = None
    """Length of each row, or None. With lengths, the rows of a step are ordered longest first:
    rows of a forward pass, and passes that processes compute at the same time, are then about
    equally long. The rows of a step stay the same.
    """
    proportion: Sequence[int] = (1,)
    """Numbers of rows of each kind that follow each other."""

    def __init__(self, rows: int, global_batch_size: int, seed: int, step: Callable[[], int]):
        self.rows = rows
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.step = step

    def __len__(self) -> int:
        return -(-self.rows // self.global_batch_size) * self.global_batch_size

    def __iter__(self) -> Iterator[int]:
        order = list(self._one_by_one())
        for start in range(0, len(order), self.global_batch_size):
            step = order[start : start + self.global_batch_size]
            yield from step if self.lengths is None else self._longest_first(step, self.lengths)

    def _one_by_one(self) -> Iterator[int]:
        order = shuffled(self.rows, self.seed + self._epoch())
        yield from (order[i % self.rows] for i in range(len(self)))

    def _longest_first(self, step: Sequence[int], lengths: Sequence[Any]) -> list[int]:
        """The rows of a step, longest first within each kind.

        The positions of the kinds do not change.
        """
        kinds = [kind for kind, share in enumerate(self.proportion) for _ in range(share)]
        dealt = list(step)
        for kind in range(len(self.proportion)):
            places = [i for i in range(len(step)) if kinds[i % len(kinds)] == kind]
            rows = sorted((step[i] for i in places), key=lengths.__getitem__, reverse=True)
            for i, row in zip(places, rows, strict=True):
                dealt[i] = row
        return dealt

    def facts(self) -> list[str]:
        """Lines to print on what a reader may not expect of the order."""
        if not (filled := len(self) - self.rows):
            return []
        return [
            f"{self.rows} rows do not fill steps of {self.global_batch_size}: the last step of each epoch takes "
            f"{filled} rows from the start of that epoch's order again"
        ]

    def _epoch(self) -> int:
        return self.step() * self.global_batch_size // len(self)


class InProportion(WholeBatches):
    """A stratified order: every forward pass holds rows of each kind in a fixed proportion.

    Rows come in groups of `proportion[0]` rows of the first kind, `proportion[1]` of the second,
    and so on. If a forward pass holds whole groups, so does every process and every step. An epoch
    contains each row at least once. A kind whose rows are used up earlier is shuffled again and
    repeated.
    """

    def __init__(
        self,
        strata: Sequence[Sequence[int]],
        proportion: Sequence[int],
        global_batch_size: int,
        seed: int,
        step: Callable[[], int],
    ):
        super().__init__(sum(map(len, strata)), global_batch_size, seed, step)
        self.strata, self.proportion = strata, proportion
        groups = max(-(-len(stratum) // share) for stratum, share in zip(strata, proportion, strict=True))
        self.length = -(-groups * sum(proportion) // global_batch_size) * global_batch_size

    def __len__(self) -> int:
        return self.length

    def _one_by_one(self) -> Iterator[int]:
        endless = [self._endless(kind) for kind in range(len(self.strata))]
        for _ in range(len(self) // sum(self.proportion)):
            for rows, share in zip(endless, self.proportion, strict=True):
                yield from (next(rows) for _ in range(share))

    def facts(self) -> list[str]:
        """How often an epoch takes the rows of each kind, if that is not exactly once."""
        groups = len(self) // sum(self.proportion)
        times = [groups * share / len(stratum) for stratum, share in zip(self.strata, self.proportion, strict=True)]
        if set(times) == {1.0}:
            return []
        counts = " and ".join(
            f"{len(stratum)} rows {time:.2f} times" for stratum, time in zip(self.strata, times, strict=True)
        )
        return [
            f"every step holds harmful and benign rows {':'.join(map(str, self.proportion))}: an epoch takes {counts}"
        ]

    def _endless(self, kind: int) -> Iterator[int]:
        stratum, epoch = self.strata[kind], self._epoch()
        for turn in itertools.count():
            seed = f"{self.seed} {epoch} {kind} {turn}"
            yield from random.Random(seed).sample(stratum, len(stratum))


def steps(order: WholeBatches, arguments: Any) -> int:
    """Optimizer steps of a run: `max_steps`, or the steps of `num_train_epochs` as in transformers."""
    if arguments.max_steps > 0:
        return arguments.max_steps
    return math.ceil(len(order) // order.global_batch_size * arguments.num_train_epochs)


def shuffled(rows: int, seed: int) -> list[int]:
    """The numbers of all rows in an order of the seed: one epoch."""
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).tolist()
