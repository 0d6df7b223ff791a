"""The interface of a model that writes responses: on this machine or behind an endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from align.answering.answer import Answer, Unanswered
from align.answering.thoughts import Marks
from align.rows import Row


class Model(Protocol):
    """A model that writes responses."""

    name: str
    """The model's name in facts, which identify a run."""
    base: str
    """The origin of its weights: a folder, a Hub id, or the name at an endpoint."""
    place: str
    """Its location, printed after the name and never stored, because it may change."""
    identity: dict[str, Any]
    """Everything that its responses depend on, in addition to the generation settings."""
    marks: Marks
    """The marks around its thoughts."""

    @property
    def agreement(self) -> Any:
        """How closely another engine or server agrees with the model here, as a dataclass; None if nothing was compared."""

    def prompt(self, row: Row) -> str:
        """The model's prompt for a row, without images."""

    def answers(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        """One result per row, in any order."""

    def usage(self) -> str:
        """The usage so far, as a short text; empty if nothing is counted."""

    def release(self) -> None:
        """Free resources."""
