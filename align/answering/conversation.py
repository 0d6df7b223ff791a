"""What a chat model is asked, and what comes back: a reply, or a failure with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from align.rows import ImageRef


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation; its images stand before its text."""

    role: str
    """system | user | assistant"""
    text: str
    images: tuple[ImageRef, ...] = ()


@dataclass(frozen=True)
class Request:
    """One question: a conversation that the model is to go on with."""

    id: str
    turns: tuple[Turn, ...]
    max_new_tokens: int
    schema: dict[str, Any] | None = None
    """JSON schema that the reply must have, where whoever is asked can be held to one."""


@dataclass(frozen=True)
class Reply:
    """What the model wrote, as it came."""

    id: str
    text: str
    finish_reason: str
    """stop: the model ended its turn; length: it was cut at max_new_tokens."""
    seconds: float
    prompt_tokens: int | None = None
    """None where a server does not say it; likewise the next."""
    new_tokens: int | None = None
    refused: bool = False
    """The server says that the text is the model's refusal to answer, in a field of its own."""
    thought: str | None = None
    """What a server gives as the model's thought, in a field of its own."""


@dataclass(frozen=True)
class Failure:
    """A request without a reply."""

    id: str
    reason: str
    """declined: the server will not have this request (its filter, a text too long for it); timeout, transport, missing_image."""
    detail: str
    final: bool = False
    """Whether the same request would surely be declined again; the server may only have been started with too little room."""
    asked: bool = True
    """False where it was not tried, since the server had failed too often."""
    help: str = ""
    """What may be done about it, in the words of the settings; not stored."""


class ChatModel(Protocol):
    """Whoever is asked."""

    def replies(self, requests: Iterable[Request]) -> Iterator[Reply | Failure]:
        """One for each request, as they come, in any order."""

    def usage(self) -> str:
        """What was used so far, in a few words; empty where nothing is counted."""

    def release(self) -> None:
        """Let go of what is held: memory of a device, connections."""
