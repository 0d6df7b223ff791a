"""Row: the common record for rows of all datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

ROLES = ("harmful", "benign")
HARM_IN = ("text", "image", "both", "none")
VIEWS = ("image", "text", "caption", "shuffled", "blank")
"""What the model sees of a row (align/data/views.py)."""


@dataclass(frozen=True)
class ImageRef:
    """An image, decoded on demand: a file, or encoded bytes (the convention of `datasets`)."""

    path: str | None = None
    bytes: bytes | None = None
    inside: str | None = None
    """Its position in the file: the member of an archive, or the cell of a parquet file
    (align/data/files/parquet.py).
    """

    @property
    def name(self) -> str | None:
        """The image's name; None for bytes in memory."""
        return f"{self.path}::{self.inside}" if self.inside else self.path


TURNS = ("system", "user", "assistant")


@dataclass(frozen=True)
class Turn:
    """A turn of a conversation before the request of a row."""

    role: str
    """system | user | assistant"""
    text: str
    places: tuple[int, ...] = ()
    """Offsets in the text, in characters, at which the next images of the row stand."""
    trained: bool = False
    """Whether supervised fine-tuning trains on it too: an earlier response."""

    def __post_init__(self) -> None:
        if self.role not in TURNS:
            raise ValueError(f"turn {self.text[:40]!r}: role {self.role!r}, expected one of {', '.join(TURNS)}")


@dataclass(frozen=True)
class Row:
    """A request to the model, its desired and undesired responses, and the location of its harm."""

    id: str
    prompt: str
    images: tuple[ImageRef, ...] = ()
    response: str | None = None
    """The response to train on; in a benchmark, its reference response, if any."""
    chosen: str | None = None
    rejected: str | None = None
    harmful_response: str | None = None
    role: str = "benign"
    harm_in: str = "none"
    """The location of the harm: text (the request leaks it: VSIL), image (VSIL-free), both, none."""
    caption: str | None = None
    twin: str | None = None
    """Rows of one twin share this id: the same query with an unsafe and a safe image."""
    source: str = ""
    category: str | None = None
    cluster: str | None = None
    """Dependent rows (one image, several queries) share this id; confidence intervals are clustered
    by it. For an image it is `image.name`; evaluation uses the image's pixel hash instead.
    """
    asked: str | None = None
    """The request for which an absent response is generated, if not the prompt: a twin has one request for all arms."""
    item: str | None = None
    """The item of the row, independent of query and view: the same for all rows of one twin."""
    view: str = "image"
    """What the model sees of the row (align/data/views.py); `image` is the unchanged row."""
    request: str | None = None
    """The plain request, if the prompt wraps it (a jailbreak) or the image hides it (an image of text)."""
    history: tuple[Turn, ...] = ()
    """The turns of a conversation before `prompt`."""
    places: tuple[int, ...] = ()
    """Offsets in `prompt` at which its images stand, the last of `images`. Empty: they stand before it."""
    follows: str | None = None
    """The row that asks the turn before, whose response by the evaluated model belongs to the history."""
    columns: dict[str, Any] = field(default_factory=dict, hash=False)
    """Further columns of the dataset, for `where.<column>=` and for breakdowns."""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"row {self.id}: role {self.role!r}, expected one of {', '.join(ROLES)}")
        if self.harm_in not in HARM_IN:
            raise ValueError(f"row {self.id}: harm_in {self.harm_in!r}, expected one of {', '.join(HARM_IN)}")
        placed = sum(len(turn.places) for turn in self.history) + len(self.places)
        if self.images and (placed > len(self.images) or (self.places and placed < len(self.images))):
            raise ValueError(f"row {self.id}: {placed} places for {len(self.images)} images")

    @property
    def plain_request(self) -> str:
        """The request that a judge sees: the whole conversation, if there is one."""
        request = self.prompt if self.request is None else self.request
        if not self.history:
            return request
        turns = [f"{turn.role.capitalize()}: {turn.text}" for turn in self.history]
        return "\n".join([*turns, f"User: {request}"])

    @property
    def requests(self) -> tuple[str, ...]:
        """The requests of the conversation, `prompt` last."""
        return (*(turn.text for turn in self.history if turn.role == "user"), self.prompt)

    def without_images(self) -> Row:
        """The same words."""
        history = tuple(replace(turn, places=()) for turn in self.history)
        return replace(self, images=(), places=(), history=history)

    def with_text_before(self, text: str) -> Row:
        """The row with a text and a line break before its prompt."""
        places = tuple(place + len(text) + 1 for place in self.places)
        return replace(self, prompt=f"{text}\n{self.prompt}", places=places)

    def to_dict(self) -> dict[str, Any]:
        """A record of a `datasets.Dataset`, without `columns`."""
        record = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "columns"}
        return record | {
            "images": [asdict(image) for image in self.images],
            "history": [asdict(turn) for turn in self.history],
            "places": list(self.places),
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Row:
        """The inverse of `to_dict`."""
        images = tuple(ImageRef(**image) for image in record["images"])
        history = tuple(Turn(**(turn | {"places": tuple(turn["places"])})) for turn in record["history"])
        return cls(**(record | {"images": images, "history": history, "places": tuple(record["places"])}))


def parts_of(text: str, places: Sequence[int], before: int = 0) -> list[dict[str, str]]:
    """A turn's content as chat templates read it: `before` images, then its text with images at `places`."""
    parts: list[dict[str, str]] = [{"type": "image"} for _ in range(before)]
    start = 0
    for place in places:
        if place > start:
            parts.append({"type": "text", "text": text[start:place]})
        parts.append({"type": "image"})
        start = place
    if text[start:] or not text:
        parts.append({"type": "text", "text": text[start:]})
    return parts


def split_view(name: str) -> tuple[str, str | None]:
    """`<benchmark>.<view>` -> its two parts; a name without a view at the end is the benchmark's name."""
    benchmark, _, view = name.rpartition(".")
    return (benchmark, view) if benchmark and view in VIEWS else (name, None)
