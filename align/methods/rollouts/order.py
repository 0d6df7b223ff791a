"""The order of rollouts: rounds of prompts, each sampled once and trained on in one or several passes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from align.methods.sampler import WholeBatches


@dataclass(frozen=True)
class Plan:
    """How many rollouts a round has, and how it is trained on."""

    samples: int
    """Responses for each prompt."""
    batches: int
    """Optimizer steps of one pass over a round."""
    passes: int
    """Passes over a round."""

    @property
    def steps(self) -> int:
        """Optimizer steps between two rounds."""
        return self.batches * self.passes


class InRounds(WholeBatches):
    """Numbers of rollouts, epoch by epoch: row * samples + sample.

    A round takes the next prompts of the epoch's order and all their samples. Every pass over it has
    an order of its own. All of this depends on the seed and the number of steps taken alone, so every
    process knows the prompts of a round, and a run that resumes has the same.
    """

    def __init__(self, rows: int, global_batch_size: int, seed: int, step: Callable[[], int], plan: Plan):
        super().__init__(rows, global_batch_size, seed, step)
        self.plan = plan
        self.prompts = global_batch_size * plan.batches // plan.samples
        """Prompts of a round."""
        self.rounds = -(-rows // self.prompts)
        """Rounds of an epoch."""

    def __len__(self) -> int:
        return self.rounds * self.plan.steps * self.global_batch_size

    def round(self) -> int:
        """The number of the present round, over all epochs."""
        return self.step() // self.plan.steps

    def prompts_of(self, round_number: int) -> list[int]:
        """The rows of a round, in order; the last round of an epoch takes rows from its start again."""
        epoch, within = divmod(round_number, self.rounds)
        order = _shuffled(self.rows, f"{self.seed} {epoch}")
        return [order[(within * self.prompts + i) % self.rows] for i in range(self.prompts)]

    def _one_by_one(self) -> Iterator[int]:
        first = self._epoch() * self.rounds
        for number in range(first, first + self.rounds):
            samples = self.plan.samples
            rollouts = [row * samples + sample for row in self.prompts_of(number) for sample in range(samples)]
            for turn in range(self.plan.passes):
                yield from random.Random(f"{self.seed} {number} {turn}").sample(rollouts, len(rollouts))

    def facts(self) -> list[str]:
        """Lines to print on what a reader may not expect of the order."""
        lines = [
            f"a round samples {self.prompts * self.plan.samples} responses to {self.prompts} prompts and trains on them "
            f"in {self.plan.steps} steps"
        ]
        if again := self.rounds * self.prompts - self.rows:
            lines.append(
                f"{self.rows} rows do not fill rounds of {self.prompts} prompts: the last round of each epoch takes "
                f"{again} rows from the start of that epoch's order again"
            )
        return lines


class Numbers:
    """The dataset of trl's data loader: rollouts by number. The rows are read when they are sampled."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> int:
        return number


def _shuffled(rows: int, seed: str) -> list[int]:
    return random.Random(seed).sample(range(rows), rows)
