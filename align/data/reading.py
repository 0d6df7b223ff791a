"""The result of a source, rows and facts about them; and the default location of a dataset's files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

from align.data.hints import option, text_view
from align.errors import UserError
from align.rows import Row
from align.settings import BenchmarkSettings, Part

Settings = TypeVar("Settings", Part, BenchmarkSettings)
VARIABLE = "VSIL_ALIGN_DATA"


@dataclass
class Read:
    """The rows of a source, and the facts to print and record: dropped rows, differences from the published dataset."""

    rows: list[Row]
    facts: list[str] = field(default_factory=list)
    unread_images: str | None = None
    """A text about columns that look like images and are not read (align/data/files/unread.py)."""
    unread_column: str | None = None
    """The first of these columns, if `columns.image=` can name it."""


class Source(Protocol):
    """What `data.<name>.source=` names: a function from the settings of a part to its rows."""

    def __call__(self, part: Part) -> Read | list[Row]:
        """Read the files of `part.path`. Raises UserError that names the file, the row and the column."""
        ...


def tell_unread_images(what: str, read: Read, wanted: bool) -> list[str]:
    """A line about columns that look like images and are not read. Raises UserError if images are
    needed and no row has one.
    """
    if read.unread_images is None or not (wanted or any(row.images for row in read.rows)):
        return []
    if any(row.images for row in read.rows):
        return [f"{what}: {read.unread_images}"]
    without = f"set {text_view()}" if text_view() else "remove the other columns"
    column = read.unread_column
    named = f"Set {option(f'columns.image={column}')}" if column else "Rename the image column to `image`"
    raise UserError(
        f"{what}: no row has an image, and {read.unread_images}. {named}; if the rows have no images, {without}"
    )


def check_subset(what: str, subset: str | None, known: Collection[str], needed: bool = False) -> None:
    """Raise UserError for an unknown subset, or if a source needs a subset and none is given."""
    if subset not in known and (needed or subset is not None):
        if not known:
            raise UserError(f"{what}: {option(f'subset={subset}')}: this dataset has no subsets; remove subset=")
        if subset is None:
            raise UserError(f"{what}: give {option('subset=<name>')}, one of {', '.join(known)}")
        also = "" if needed else "; without subset= all rows are read"
        raise UserError(f"{what}: {option(f'subset={subset}')}: expected one of {', '.join(known)}{also}")


def at_root(settings: Settings, data_root: str | None, name: str) -> Settings:
    """Fill in an absent path with the dataset `name` in the data root, if it exists there."""
    if settings.path is None and (path := below(data_root, name)):
        return replace(settings, path=str(path))
    return settings


def below(data_root: str | None, name: str) -> Path | None:
    """A dataset's folder or zip archive in the data root. Raises UserError if the root is not a folder."""
    return next((path for path in places_below(data_root, name) if path.exists()), None)


def places_below(data_root: str | None, name: str) -> tuple[Path, ...]:
    """Where a dataset is looked for in the data root; () without a data root.

    Raises UserError if the root is not a folder.
    """
    given = data_root or os.environ.get(VARIABLE)
    if not given:
        return ()
    root = Path(given)
    if not root.is_dir():
        raise UserError(
            f"{'data_root=' if data_root else f'${VARIABLE}='}{given}: not a folder; give the folder that holds "
            "datasets by name"
        )
    return root / name, root / f"{name}.zip"


class UniqueIds:
    """Make repeated ids unique (VLGuard's 2,000 records have 1,999 ids): the second row gets `<id>-2`."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()
        self._given: set[str] = set()

    def __call__(self, row_id: str) -> str:
        """Return the id or, if it occurred before, the id with a number that makes it unique."""
        self._times[row_id] += 1
        unique = row_id if row_id not in self._given else f"{row_id}-{max(2, self._times[row_id])}"
        while unique in self._given:
            self._times[row_id] += 1
            unique = f"{row_id}-{self._times[row_id]}"
        self._given.add(unique)
        return unique
