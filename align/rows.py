"""Row: the common record for rows of all datasets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
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
    columns: dict[str, Any] = field(default_factory=dict, hash=False)
    """Further columns of the dataset, for `where.<column>=` and for breakdowns."""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"row {self.id}: role {self.role!r}, expected one of {', '.join(ROLES)}")
        if self.harm_in not in HARM_IN:
            raise ValueError(f"row {self.id}: harm_in {self.harm_in!r}, expected one of {', '.join(HARM_IN)}")

    @property
    def plain_request(self) -> str:
        """The request that a judge sees."""
        return self.prompt if self.request is None else self.request

    def to_dict(self) -> dict[str, Any]:
        """A record of a `datasets.Dataset`, without `columns`."""
        record = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "columns"}
        return record | {"images": [asdict(image) for image in self.images]}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Row:
        """The inverse of `to_dict`."""
        images = tuple(ImageRef(**image) for image in record["images"])
        return cls(**(record | {"images": images}))


def split_view(name: str) -> tuple[str, str | None]:
    """`<benchmark>.<view>` -> its two parts; a name without a view at the end is the benchmark's name."""
    benchmark, _, view = name.rpartition(".")
    return (benchmark, view) if benchmark and view in VIEWS else (name, None)
