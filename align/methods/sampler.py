"""The order in which rows are trained on: a matter of the seed and the global batch, not of how many processes share the work."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch


class WholeBatches(torch.utils.data.Sampler[int]):
    """Row numbers of one epoch after another, each shuffled by seed + epoch as accelerate's own sampler does.

    Where the rows do not fill the last batch of an epoch, rows from the beginning of that epoch's order fill it. Left alone, one
    process would take a smaller step there and several would fill it up (accelerate's `even_batches`), so that the same experiment
    would be another one.

    The epoch is told from the optimizer steps that were taken (`step`), not by `set_epoch`: on its way through the wrappers of a run
    that resumes on several processes that call gets lost.
    """

    lengths: Sequence[Any] | None = None
    """Of each row. With them the rows of a step are dealt longest first: a pass holds what is about as long, and so do those that processes
    compute at a time. Every step holds the same rows as without them.
    """
    proportion: Sequence[int] = (1,)
    """How many rows of each kind follow each other."""

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
        order = _shuffled(self.rows, self.seed + self._epoch())
        yield from (order[i % self.rows] for i in range(len(self)))

    def _longest_first(self, step: Sequence[int], lengths: Sequence[Any]) -> list[int]:
        """The rows of a step, each kind in its places."""
        kinds = [kind for kind, share in enumerate(self.proportion) for _ in range(share)]
        dealt = list(step)
        for kind in range(len(self.proportion)):
            places = [i for i in range(len(step)) if kinds[i % len(kinds)] == kind]
            rows = sorted((step[i] for i in places), key=lengths.__getitem__, reverse=True)
            for i, row in zip(places, rows, strict=True):
                dealt[i] = row
        return dealt

    def facts(self) -> list[str]:
        """What is not as a reader may expect, each a line to print."""
        if not (filled := len(self) - self.rows):
            return []
        return [
            f"{self.rows} rows do not fill steps of {self.global_batch_size}: the last step of each epoch takes {filled} rows "
            f"from the beginning of its order once more"
        ]

    def _epoch(self) -> int:
        return self.step() * self.global_batch_size // len(self)


class InProportion(WholeBatches):
    """The same for kinds of rows that every forward pass must hold in fixed proportion: a stratified order.

    Rows come in groups of `proportion[0]` of the first kind, `proportion[1]` of the second, and so on. As long as a forward pass
    takes whole groups, so does every process and every step, however they are cut. In an epoch each row comes at least once; kinds
    that run out before that are shuffled anew and go round again.
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
        """How often the rows of each kind are taken in an epoch, where it is not once."""
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
    """Optimizer steps of a run over rows in this order: `max_steps`, or whole steps of `num_train_epochs` as transformers counts them."""
    if arguments.max_steps > 0:
        return arguments.max_steps
    return math.ceil(len(order) // order.global_batch_size * arguments.num_train_epochs)


def _shuffled(rows: int, seed: int) -> list[int]:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).tolist()
