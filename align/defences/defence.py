"""The contract of a defence: how one request is answered, in one or several calls of the model.

A defence is written for one row, as a generator that yields what it needs next: replies of the model
(`ask`, `ask_all`) or labels of a judge (`consult`). `DefendedModel` (model.py) runs the generators of
many rows side by side and asks the model for all rows of a pass at once, so batches stay full, and it
counts calls and tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Protocol

from align.answering.answer import Answer, Unanswered
from align.rows import Row

DecodingHook = Callable[[Sequence[str], Any], Sequence[Any]]
"""(row ids of a batch, device) -> transformers' LogitsProcessors for that batch, before the next token is chosen."""


@dataclass(frozen=True)
class Reply:
    """What the model wrote in one call."""

    text: str
    """Without its thought; empty if the model wrote only a thought."""
    answer: Answer


@dataclass(frozen=True)
class Label:
    """A judge's label of a text, with the judge's tokens; None if nothing is counted."""

    label: str
    prompt_tokens: int | None = None
    new_tokens: int | None = None


@dataclass(frozen=True)
class Ask:
    """Calls of the model in one pass: one reply for each row."""

    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Consult:
    """Texts for the judge in one pass: responses to a row; None for the request itself."""

    row: Row
    responses: tuple[str | None, ...]


@dataclass(frozen=True)
class Outcome:
    """The response to a row: a reply of the model, or a fixed text."""

    response: Reply | str
    acted: bool = False
    """Whether the defence replaced the response, refused, or chose another than the first."""
    unclear: int = 0
    """Replies to second questions that are neither yes nor no."""


Steps = Generator[Ask | Consult, Any, Outcome]


class Assessor(Protocol):
    """What labels texts for a defence: a judge, in align/evaluation/defended.py."""

    identity: dict[str, Any]
    """Everything that its labels depend on."""

    def labels(self, consults: Sequence[Consult]) -> Iterator[list[Label] | Unanswered]:
        """For each consultation in order its labels, or why there is none: never a guess."""

    def usage(self) -> str:
        """The usage so far, as a short text; empty if nothing is counted."""

    def release(self) -> None:
        """Free resources."""


class Defence:
    """A defence without training. A subclass overrides `steps`, or `applied` alone if one call is enough."""

    name: str
    Settings: ClassVar[type | None] = None
    """Dataclass of its settings, `defence_settings.<name>.<field>=`; the constructor gets an instance. None: it
    reads no settings."""
    settings: Any = None
    """The instance."""
    texts: tuple[str, ...] = ()
    """Its prompts, by which stored responses are recognised."""
    assessor: Assessor | None = None
    """Its judge; the constructor gets it if `Settings` has a field `judge`."""
    samples: ClassVar[bool] = False
    """Whether it needs several samples of a response, and so `generation.do_sample=true`."""
    judges_requests: ClassVar[bool] = False
    """Whether its judge labels requests, as for `align leakage`, instead of responses."""
    decoding: DecodingHook | None = None
    """Changes how tokens are chosen; only for models that run on this machine through transformers."""

    @property
    def most_calls(self) -> int:
        """The most calls of the model for one response."""
        return 1

    @property
    def prompt_says_all(self) -> bool:
        """Whether a response depends only on the row of `applied`: one call, no judge, no decoding hook."""
        return False

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that responses depend on: name, prompts, settings, judge."""
        told: dict[str, Any] = {"name": self.name, "texts": digest(*self.texts)}
        given = {} if self.settings is None else asdict(self.settings)
        given.pop("judge_settings", None)  # the judge's identity has what verdicts depend on, and no endpoint
        told |= {"settings": given} if given else {}
        return told | ({"judge": self.assessor.identity} if self.assessor else {})

    def applied(self, row: Row) -> Row:
        """The row as the model is first asked it; judges see the row without it."""
        return row

    def steps(self, row: Row) -> Steps:
        """How a row is answered. A call without a reply ends the row without a response."""
        return Outcome((yield from ask(self.applied(row))))


def ask(row: Row) -> Generator[Ask, list[Reply], Reply]:
    """Wait for the model's reply to a row; `reply = yield from` this."""
    (reply,) = yield Ask((row,))
    return reply


def ask_all(rows: Sequence[Row]) -> Generator[Ask, list[Reply], list[Reply]]:
    """The model's replies to several rows, in one pass."""
    return (yield Ask(tuple(rows)))


def consult(row: Row, responses: Sequence[str | None]) -> Generator[Consult, list[Label], list[Label]]:
    """The judge's label of each response to a row; of the request itself for None."""
    return (yield Consult(row, tuple(responses)))


def with_prompt(row: Row, prompt: str) -> Row:
    """The row with another prompt; its images stand before it."""
    return replace(row, prompt=prompt, places=())


def digest(*texts: str) -> str:
    """A short hash of texts."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
