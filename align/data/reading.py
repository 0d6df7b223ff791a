"""What a source gives: rows, and what it has to tell of them. And where its files are, if nothing says it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from align.data.hints import option, text_view
from align.errors import UserError
from align.rows import Row
from align.settings import BenchmarkSettings, Part

Settings = TypeVar("Settings", Part, BenchmarkSettings)
VARIABLE = "VSIL_ALIGN_DATA"


@dataclass
class Read:
    """The rows of a source and the facts to print and to record: what was left out, what is not as published."""

    rows: list[Row]
    facts: list[str] = field(default_factory=list)
    unread_images: str | None = None
    """Columns that look like images and are not read, in words (align/data/files/unread.py)."""


def tell_unread_images(what: str, read: Read, wanted: bool) -> list[str]:
    """A line on columns that look like images and are not read. Raises UserError where images are wanted and no row has one."""
    if read.unread_images is None or not (wanted or any(row.images for row in read.rows)):
        return []
    if any(row.images for row in read.rows):
        return [f"{what}: {read.unread_images}"]
    without = f"set {text_view()}" if text_view() else "remove the others"
    raise UserError(
        f"{what}: no row has an image, and {read.unread_images}. Rename the right one to `image`; if no images are meant, {without}"
    )


def check_subset(what: str, subset: str | None, known: Collection[str], needed: bool = False) -> None:
    """Raises UserError for a subset that a source has not, or that it needs and is not given."""
    if subset not in known and (needed or subset is not None):
        if not known:
            raise UserError(f"{what}: {option(f'subset={subset}')}: it has no subsets; remove it")
        if subset is None:
            raise UserError(f"{what}: give {option('subset=<name>')}, one of {', '.join(known)}")
        also = "" if needed else ", or none for all"
        raise UserError(f"{what}: {option(f'subset={subset}')}: expected one of {', '.join(known)}{also}")


def at_root(settings: Settings, data_root: str | None, name: str) -> Settings:
    """Settings with the path of the data set `name` below the root, where they name none and it is there."""
    if settings.path is None and (path := below(data_root, name)):
        return replace(settings, path=str(path))
    return settings


def below(data_root: str | None, name: str) -> Path | None:
    """A data set's folder or zip archive below the root. Raises UserError where the root is no folder."""
    given = data_root or os.environ.get(VARIABLE)
    if not given:
        return None
    root = Path(given)
    if not root.is_dir():
        raise UserError(f"{'data_root=' if data_root else f'${VARIABLE}='}{given}: not a folder")
    return next((path for path in (root / name, root / f"{name}.zip") if path.exists()), None)


class UniqueIds:
    """Ids that a set uses more than once (VLGuard's 2,000 records have 1,999) made different: the second is called `<id>-2`."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()
        self._given: set[str] = set()

    def __call__(self, row_id: str) -> str:
        """The id, with a number if it was there before, one that makes no other row's id."""
        self._times[row_id] += 1
        unique = row_id if row_id not in self._given else f"{row_id}-{max(2, self._times[row_id])}"
        while unique in self._given:
            self._times[row_id] += 1
            unique = f"{row_id}-{self._times[row_id]}"
        self._given.add(unique)
        return unique
