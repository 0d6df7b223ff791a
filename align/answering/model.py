"""Whoever is asked for answers: a model on this machine or one behind an address."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from align.answering.answer import Answer, Unanswered
from align.answering.thoughts import Marks
from align.rows import Row


class Model(Protocol):
    """Whoever is asked."""

    name: str
    """Whose answers they are: a fact that a run is recognised by."""
    base: str
    """Where its weights come from: a folder, a hub id, or its name at an address."""
    place: str
    """Where it is asked, to be put behind the name: printed alone, since it may be elsewhere the next time."""
    identity: dict[str, Any]
    """What its answers depend on, beside the settings of generation."""
    marks: Marks
    """What its thoughts stand between."""

    def prompt(self, row: Row) -> str:
        """What the model is given of a row, but for its images."""

    def answers(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        """One for each row, as they come, in any order."""

    def usage(self) -> str:
        """What was used so far, in a few words; empty where nothing is counted."""

    def release(self) -> None:
        """Let go of what is held."""
