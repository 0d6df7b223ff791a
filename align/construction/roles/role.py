"""The interface of a role: a model or a function that replies to calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from align.answering.conversation import Failure, Reply
from align.rows import ImageRef


@dataclass(frozen=True)
class Call:
    """One call of a role: which of its prompts, the values of the placeholders, and images."""

    id: str
    """The item's id, with a number for further calls about it."""
    prompt: str
    """Name of the text in the role's prompt file."""
    values: Mapping[str, str]
    images: tuple[ImageRef, ...] = ()
    seed: int = 0
    """Seed of the call; it depends on the item, the step and the round, not on the order."""


class Role(Protocol):
    """A model or function in a role."""

    name: str
    identity: dict[str, Any]
    """Everything that its replies depend on, in addition to the call."""

    def replies(self, calls: Sequence[Call]) -> Iterator[Reply | Failure]:
        """One reply or failure per call, in any order."""

    def usage(self) -> str:
        """The usage so far, as a short text; empty if nothing is counted."""

    def release(self) -> None:
        """Free resources."""


@dataclass(frozen=True)
class Duty:
    """What a role does, independent of its model."""

    name: str
    what: str
    prompts: Mapping[str, tuple[str, ...]]
    """{name of a prompt: its placeholders}"""
    max_new_tokens: int
    sees_image: bool = False


DUTIES = {
    duty.name: duty
    for duty in (
        Duty(
            "writer",
            "invents harmful elements, image descriptions and queries",
            {
                "elements": ("category", "subcategory", "n"),
                "queries": ("category", "subcategory", "element", "n"),
                "from_image": ("category", "n"),
            },
            max_new_tokens=1024,
            sees_image=True,
        ),
        Duty(
            "detoxifier",
            "rewrites a harmful query so that its text alone is harmless",
            {"rewrite": ("query", "description", "n")},
            max_new_tokens=512,
        ),
        Duty(
            "text_judge",
            "judges whether a rewritten query is harmless alone and still harmful with the image",
            {"judge": ("query", "description")},
            max_new_tokens=256,
        ),
        Duty(
            "prompt_writer",
            "writes prompts for the image models",
            {"paint": ("description", "element"), "twin": ("description", "element", "query")},
            max_new_tokens=256,
        ),
        Duty(
            "verifier",
            "checks whether an image shows what it should",
            {"paint": ("prompt", "element", "category", "query"), "twin": ("prompt", "element", "query")},
            max_new_tokens=256,
            sees_image=True,
        ),
        Duty(
            "pair_judge",
            "judges whether query and image together are meaningful and unsafe",
            {"pair": ("query",)},
            max_new_tokens=256,
            sees_image=True,
        ),
        Duty("captioner", "describes an image", {"caption": ()}, max_new_tokens=128, sees_image=True),
        Duty(
            "answerer",
            "answers the unsafe pair safely and its safe twin helpfully",
            {"safe": ("query",), "helpful": ("query",)},
            max_new_tokens=512,
            sees_image=True,
        ),
    )
}
"""The roles that write or judge; the painters are in align/construction/painters."""
