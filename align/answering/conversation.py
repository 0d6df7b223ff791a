"""Requests to a chat model, and their results: a reply, or a failure with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from align.rows import ImageRef, parts_of


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation."""

    role: str
    """system | user | assistant"""
    text: str
    images: tuple[ImageRef, ...] = ()
    places: tuple[int, ...] = ()
    """Offsets in the text at which the images stand; empty: they come before it."""

    def parts(self) -> list[dict[str, str]]:
        """Its content as chat templates read it."""
        return parts_of(self.text, self.places, len(self.images) - len(self.places))


@dataclass(frozen=True)
class Request:
    """One request: a conversation that the model continues."""

    id: str
    turns: tuple[Turn, ...]
    max_new_tokens: int
    schema: dict[str, Any] | None = None
    """JSON schema of the reply, for endpoints that can enforce it."""
    call: int = 0
    """Which call for its row it is, from 0: with sampling, it is added to the seed."""


@dataclass(frozen=True)
class Reply:
    """The model's unchanged text."""

    id: str
    text: str
    finish_reason: str
    """stop: the model ended its turn; length: the reply was truncated at max_new_tokens."""
    seconds: float
    prompt_tokens: int | None = None
    """None if a server does not report it, as for `new_tokens`."""
    new_tokens: int | None = None
    refused: bool = False
    """The server returned the text as a refusal, in a separate field."""
    thought: str | None = None
    """The model's thought, if the server returns it in a separate field."""


@dataclass(frozen=True)
class Failure:
    """A request without a reply."""

    id: str
    reason: str
    """declined: the server rejects this request (its filter, a text too long for it); timeout,
    transport, missing_image.
    """
    detail: str
    final: bool = False
    """Whether the server will always decline this request; if False, for example, its context may
    only be set too short.
    """
    asked: bool = True
    """False if no request was sent, because the server had failed too often."""
    help: str = ""
    """What the user can do, in terms of the settings; not stored."""


class ChatModel(Protocol):
    """A chat model, on this machine or behind an endpoint."""

    def replies(self, requests: Iterable[Request]) -> Iterator[Reply | Failure]:
        """One reply or failure per request, in any order."""

    def usage(self) -> str:
        """The usage so far, as a short text; empty if nothing is counted."""

    def release(self) -> None:
        """Free resources: device memory, connections."""
