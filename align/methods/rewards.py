"""What a method that learns from rewards gets from its run: named rewards of rows and responses.

A reward is a reward model on the policy's own base (`folder`), or a function (`judge`). The run
builds them (align/rewards/).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from align.rows import ROLES, Row

Score = Callable[[Sequence[Row], Sequence[str]], Sequence[float | None]]
"""(Rows, a response to each) -> a reward for each; None for a response without one, never 0."""


@dataclass(frozen=True)
class Reward:
    """One reward: exactly one of `folder` and `score` is given."""

    name: str
    weight: float = 1.0
    roles: tuple[str, ...] = ROLES
    """Roles of the rows that it is a reward for."""
    folder: str | None = None
    """The weights of a reward model (align/models/scalar_head.py), trained on the policy's base."""
    score: Score | None = None


@dataclass(frozen=True)
class Rewards:
    """The rewards of a run. Their weighted sum is what the policy maximises."""

    terms: tuple[Reward, ...] = ()
    cost: Reward | None = None
    """Safe RLHF's cost, to be kept below a limit; None without one."""
    refuses: Callable[[str], bool] | None = None
    """Whether a response is a refusal; used for the log and for stopping only."""

    @property
    def all(self) -> tuple[Reward, ...]:
        """The rewards and the cost."""
        return self.terms if self.cost is None else (*self.terms, self.cost)
