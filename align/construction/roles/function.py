"""A role that a function has: `module:function`, from calls to one text per call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from align.answering.conversation import Failure, Reply
from align.construction.roles.role import Call
from align.errors import UserError

Function = Callable[[Sequence[Call]], Iterable[str]]
"""Calls -> one reply per call, in their order. Draws use `call.seed`."""


class FunctionRole:
    """A function in a role; its attribute `version`, if it has one, is part of its identity."""

    def __init__(self, name: str, use: str, function: Function):
        self.name, self._function = name, function
        self.identity: dict[str, Any] = {"use": use, "version": getattr(function, "version", None)}

    def replies(self, calls: Sequence[Call]) -> Iterator[Reply | Failure]:
        """One reply per call. Raises UserError if the function does not give one text per call."""
        texts = list(self._function(calls))
        if len(texts) != len(calls) or not all(isinstance(text, str) for text in texts):
            raise UserError(
                f"role.each.{self.name}.use={self.identity['use']}: {len(texts)} results for {len(calls)} calls; "
                "expected one text for each call"
            )
        for call, text in zip(calls, texts, strict=True):
            yield Reply(call.id, text, "stop", 0.0)

    def usage(self) -> str:
        """Return an empty text: functions have no cost."""
        return ""

    def release(self) -> None:
        """Do nothing: a function holds nothing that is freed here."""
