"""Row: the one record that every data set becomes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

ROLES = ("harmful", "benign")
HARM_IN = ("text", "image", "both", "none")
VIEWS = ("image", "text", "caption", "shuffled", "blank")
"""What of a row the model sees (align/data/views.py)."""


@dataclass(frozen=True)
class ImageRef:
    """An image that is decoded when it is needed: a file, or encoded bytes (the convention of `datasets`)."""

    path: str | None = None
    bytes: bytes | None = None
    inside: str | None = None
    """Where in the file it lies: the member of a zip archive, or the cell of a parquet file (align/data/files/parquet.py)."""

    @property
    def name(self) -> str | None:
        """What it is called; None for bytes in memory."""
        return f"{self.path}::{self.inside}" if self.inside else self.path


@dataclass(frozen=True)
class Row:
    """A request to the model, what it should (or should not) answer, and where its harm lies."""

    id: str
    prompt: str
    images: tuple[ImageRef, ...] = ()
    response: str | None = None
    """The answer to train on; in a benchmark, the reference answer where the set has one."""
    chosen: str | None = None
    rejected: str | None = None
    harmful_response: str | None = None
    role: str = "benign"
    harm_in: str = "none"
    """Where the harm is stated: text (the request leaks it: VSIL), image (VSIL-free), both, none."""
    caption: str | None = None
    twin: str | None = None
    """Rows of one twin share this id: the same query over an unsafe and a safe image."""
    source: str = ""
    category: str | None = None
    cluster: str | None = None
    """Rows that are not independent (one image, several queries) share this id; intervals are clustered by it. Of a row's image it is
    `image.name`, for which its pixels stand in."""
    asked: str | None = None
    """The request whose answer is generated where the row lacks one, if it is not the prompt: a twin's is one for all arms."""
    item: str | None = None
    """What the row is about, however it is asked and shown: the same for all rows that are made of one twin."""
    view: str = "image"
    """What the model sees of it (align/data/views.py): `image` is the row as it is."""
    request: str | None = None
    """The request in plain words, where the prompt wraps it (a jailbreak) or the image hides it (an image of text)."""
    columns: dict[str, Any] = field(default_factory=dict, hash=False)
    """The set's own further columns, for `where.<column>=` and for breakdowns."""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"row {self.id}: role {self.role!r}, expected one of {', '.join(ROLES)}")
        if self.harm_in not in HARM_IN:
            raise ValueError(f"row {self.id}: harm_in {self.harm_in!r}, expected one of {', '.join(HARM_IN)}")

    @property
    def plain_request(self) -> str:
        """What a judge is told was asked."""
        return self.prompt if self.request is None else self.request

    def to_dict(self) -> dict[str, Any]:
        """As a record of a `datasets.Dataset`; `columns` stay behind."""
        record = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "columns"}
        return record | {"images": [asdict(image) for image in self.images]}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Row:
        """The inverse of `to_dict`."""
        images = tuple(ImageRef(**image) for image in record["images"])
        return cls(**(record | {"images": images}))


def split_view(name: str) -> tuple[str, str | None]:
    """`<benchmark>.<view>` -> its two parts; a name that does not end in a view's name is a benchmark's alone."""
    benchmark, _, view = name.rpartition(".")
    return (benchmark, view) if benchmark and view in VIEWS else (name, None)
