"""An item on its way through the construction, and what a step made of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

KEPT, DROPPED, REFUSED, UNPARSABLE, FAILED = "kept", "dropped", "refused", "unparsable", "failed"
STATUSES = (KEPT, DROPPED, REFUSED, UNPARSABLE, FAILED)
"""What became of an item in a step. Only `failed` items (an endpoint or memory) are tried again by the same command."""


@dataclass(frozen=True)
class Item:
    """One item; images are paths relative to the output folder."""

    id: str
    parent: str | None = None
    """Id of the item that it was made from."""
    category: str | None = None
    subcategory: str | None = None
    element: str | None = None
    """The harmful object or scene."""
    description: str | None = None
    """What the unsafe image shows, in words; known before the image exists."""
    query_leak: str | None = None
    """The harmful query, whose text shows the harm."""
    query_free: str | None = None
    """The rewritten query, harmless without the image."""
    image_prompt: str | None = None
    image: str | None = None
    caption: str | None = None
    benign_prompt: str | None = None
    benign_image: str | None = None
    benign_caption: str | None = None
    response: str | None = None
    """A safe response to the unsafe pair."""
    benign_response: str | None = None
    """A helpful response to the same query with the safe image."""
    origin: str | None = None
    """Where the unsafe image is from: the painter, or the dataset of a given image."""
    licence: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A record without absent values."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Item:
        """The inverse of `to_dict`."""
        return cls(**record)


@dataclass(frozen=True)
class Outcome:
    """A line of a step's file: what became of one item that entered the step."""

    id: str
    status: str
    reason: str | None = None
    """Why an item was not kept, as a word that the funnel counts."""
    detail: str | None = None
    made: tuple[Item, ...] = ()
    """The items that leave the step: none, the item itself with more fields, or several new ones."""
    counts: dict[str, int] = field(default_factory=dict)
    """What was tried on the way, e.g. rewritten queries and how many of them leaked."""
    calls: tuple[dict[str, Any], ...] = ()
    """One record per reply: role, tokens, seconds."""

    def to_dict(self) -> dict[str, Any]:
        """A record for the step's file."""
        record = {one.name: getattr(self, one.name) for one in fields(self)}
        return record | {"made": [item.to_dict() for item in self.made], "calls": list(self.calls)}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Outcome:
        """The inverse of `to_dict`."""
        known = {one.name: record[one.name] for one in fields(cls)}
        made = tuple(Item.from_dict(item) for item in record["made"])
        return cls(**(known | {"made": made, "calls": tuple(record["calls"])}))
