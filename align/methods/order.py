"""The order in which rows are trained on: a matter of the seed and the global batch, not of how many processes share the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch


class WholeBatches(torch.utils.data.Sampler[int]):
    """Row numbers of one epoch after another, each shuffled by seed + epoch as accelerate's own sampler does.

    Where the rows do not fill the last batch of an epoch, rows from the beginning of that epoch's order fill it. Left alone, one
    process would take a smaller step there and several would fill it up (accelerate's `even_batches`), so that the same experiment
    would be another one.

    The epoch is told from the optimizer steps that were taken (`step`), not by `set_epoch`: on its way through the wrappers of a run
    that resumes on several processes that call gets lost.
    """

    def __init__(self, rows: int, global_batch_size: int, seed: int, step: Callable[[], int]):
        self.rows = rows
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.step = step

    def __len__(self) -> int:
        return -(-self.rows // self.global_batch_size) * self.global_batch_size

    def __iter__(self) -> Iterator[int]:
        epoch = self.step() * self.global_batch_size // len(self)
        order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(self.seed + epoch)).tolist()
        yield from (order[i % self.rows] for i in range(len(self)))
