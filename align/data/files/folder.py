"""Where a data set's files are: a folder, a zip archive of one, a file, or a snapshot of the Hugging Face hub."""

from __future__ import annotations

import fnmatch
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from align.config.paths import is_hub_id
from align.data.files import archive
from align.data.files.formats import KNOWN, ending_of
from align.data.files.hub import snapshot
from align.data.files.image_bytes import exists
from align.data.files.parquet import INSIDE
from align.data.files.records import READERS, UNREADABLE, File, Record, as_text, records, shown
from align.data.files.roots import ImageRoot, ImageRoots, refuse_outside
from align.data.hints import option
from align.errors import UserError
from align.rows import ImageRef


class Where(Protocol):
    """What settings say of where files are; a part of the training data and a benchmark say it alike."""

    path: str | None
    image_root: Any
    """One folder or zip archive, or a list of them."""
    revision: str | None
    follow_links: bool


@dataclass(frozen=True)
class DataFolder:
    """A data set's files."""

    what: str
    """Whose they are, as errors say it."""
    root: File
    """The folder, or the folder in an archive."""
    images: ImageRoots
    """What image paths are relative to."""
    index: Path | None = None
    """The one file that `path` named, if it named a file."""
    bound: Path | None = None
    """What files must stay inside, where it is not `root`: the hub's cache links from a snapshot to the files beside it."""
    follow_links: bool = False
    """Whether links may lead out of the folder."""

    @classmethod
    def open(cls, what: str, where: Where, hub: str | None = None, patterns: Sequence[str] | None = None) -> DataFolder:
        """The files at `where.path`; `hub` is the id that the set has there, and `patterns` the files that are read. Raises UserError."""
        if where.path is None:
            there = f", {option(f'path={hub}')} {option('revision=<commit>')} for the hub's" if hub else ""
            raise UserError(
                f"{what}: give {option('path=<folder, file or zip archive>')}{there}, or data_root=<folder that holds data sets by name>"
            )
        path, index = Path(where.path), None
        if where.revision is not None and path.exists():
            raise UserError(
                f"{what}: {option(f'revision={where.revision}')} is of a dataset of the hub, and {option(f'path={path}')} is on this "
                f"machine; remove the revision"
            )
        if not path.exists() and is_hub_id(where.path) and path.suffix not in KNOWN:
            path = snapshot(where.path, where.revision, what, patterns)
        if not path.exists():
            raise UserError(f"{what}: {option(f'path={path}')} does not exist")
        path = path.absolute()  # images are known by their names, from wherever a run is started
        root, bound, follow = path, _hub_cache(path), _follows(where)
        if path.is_file() and ending_of(path) == ".zip":
            top = top_of(what, path)
            return cls(what, top, _roots(what, where, ImageRoot(top)), None, bound, follow)
        if path.is_file():
            root, index = path.parent, path
        return cls(what, root, _roots(what, where, ImageRoot(root, bound, follow)), index, bound, follow)

    @property
    def name(self) -> str:
        """The folder's or archive's own name."""
        return Path(str(self.root).rstrip("/")).stem if isinstance(self.root, zipfile.Path) else self.root.name

    def has(self, name: str) -> bool:
        """Whether there is a file or folder of that name."""
        return (self.root / name).exists()

    def holding(self, names: Sequence[str], places: Sequence[str]) -> DataFolder:
        """The place that has one of the files `names`: the folder itself, or a folder or zip archive in it called one of `places`.

        The folder itself if none has. Raises UserError for a place that is a link out of the folder.
        """
        if self.index is not None or any(map(self._matching, names)):
            return self
        inner = (self._inner(place) for place in places)
        return next((folder for folder in inner if folder and any(map(folder._matching, names))), self)

    def _inner(self, place: str) -> DataFolder | None:
        at: File
        if isinstance(self.root, zipfile.Path):
            at, bound = self.root / place, None
            if not at.is_dir():
                return None
        else:
            bound, file = self.bound or self.root, self.root / f"{place}.zip"
            at = self.root / place
            if not at.is_dir() and not file.is_file():
                return None
            refuse_outside(at if at.is_dir() else file, bound, self.follow_links)
            at = at if at.is_dir() else top_of(self.what, file)
        images = self.images if self.images.given else ImageRoots((ImageRoot(at, bound, self.follow_links),))
        return replace(self, root=at, images=images, bound=bound)

    def files(self, *patterns: str) -> list[File]:
        """The files that the first pattern that fits any names, sorted: `train.json`, `data/train-*.parquet`. Raises UserError."""
        if self.index is not None:
            return [self.index]
        for pattern in patterns:
            if found := self._matching(pattern):
                for file in found:
                    refuse_outside(file, self.bound or self.root, self.follow_links)
                return found
        raise UserError(f"{self.what}: there is no {' or '.join(patterns)} in {self.root}")

    def records(self, *patterns: str, part: str | None = None) -> Iterator[Record]:
        """The records of the files that the first pattern that fits any names; see align/data/files/records.py. Raises UserError."""
        for file in self.files(*patterns):
            empty = True
            for record in records(file, part):
                empty = False
                yield record
            if empty:
                raise UserError(f"{self.what}: no rows in {file}")

    def tables(self) -> list[str]:
        """Patterns for `records` of a folder that holds tables of one format, whatever they are called. Raises UserError."""
        patterns = [f"*{ending}" for ending in READERS]
        found = {pattern: names for pattern in patterns if (names := self._matching(pattern))}
        if len(found) > 1 and self.index is None:
            named = ", ".join(names[0].name for names in found.values())
            raise UserError(
                f"{self.what}: {self.root} holds tables of several formats ({named}); name one: {option('path=<file>')}"
            )
        return patterns

    def image(self, name: str, where: str) -> ImageRef:
        """The image that a set calls `name`, there or not. Raises UserError where it would lie outside the folder."""
        return self.images.image(name, where)

    def find_image(self, names: Sequence[str], places: Sequence[str], where: str) -> ImageRef:
        """The image that a set calls one of `names`, in the first of the folders `places` that has it, or right where images are.

        If none has it, what is absent is the first name in the first place; right in `image_root` where that is given. Raises UserError.
        """
        prefixes = [*(f"{place}/" for place in places), ""]
        if self.images.given:
            prefixes.reverse()
        tried = [self.image(prefix + name, where) for name in names for prefix in prefixes]
        return next((image for image in tried if exists(image)), tried[0])

    def cell(self, record: Record, column: str) -> ImageRef:
        """The one image of a record's column: bytes in a parquet file, or a path. Raises UserError."""
        found = self.cells(record, column)
        if len(found) != 1:
            raise UserError(f"{record.where}: `{column}` holds {len(found)} images, expected one")
        return found[0]

    def cells(self, record: Record, column: str) -> tuple[ImageRef, ...]:
        """The images of a record's column: paths, or bytes in a parquet file, or lists of these. Raises UserError."""
        value = record.get(column)
        values = value if isinstance(value, list) else [] if value in (None, "") else [value]
        return tuple(self._cell(item, record, column) for item in values)

    def _cell(self, item: object, record: Record, column: str) -> ImageRef:
        if isinstance(item, dict) and INSIDE in item:
            return ImageRef(path=str(record.file), inside=str(item[INSIDE]))
        name = item.get("path") if isinstance(item, dict) else item
        if not isinstance(name, str) or not name:
            raise UserError(f"{record.where}: `{column}` is {shown(item)}, expected a path")
        return self.image(as_text(name, column, record.where), record.where)

    def _matching(self, pattern: str) -> list[File]:
        if isinstance(self.root, zipfile.Path):
            # The one folder of an archive may be the set's own, as PKU-SafeRLHF's `data`.
            return _members(self.root, pattern) or _members(zipfile.Path(self.root.root), pattern)
        # By name: a link that leads nowhere stands for rows that are absent, and a glob for one name passes over it.
        parent, _, last = pattern.rpartition("/")
        return [
            file for file in sorted(self.root.glob(f"{parent}/*".lstrip("/"))) if fnmatch.fnmatchcase(file.name, last)
        ]


def _members(folder: zipfile.Path, pattern: str) -> list[File]:
    names = [name for name in folder.root.namelist() if name.startswith(folder.at)]
    inner = [name.removeprefix(folder.at) for name in names]
    return [folder / name for name in sorted(inner) if _fits(name, pattern)]


def _fits(name: str, pattern: str) -> bool:
    """As a folder's glob: a star stands for no slash."""
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def top_of(what: str, file: Path) -> zipfile.Path:
    """The folder of an archive that holds its files: the archive itself, or the one folder in it. Raises UserError."""
    try:
        top = zipfile.Path(archive.archive(file))
        archive.members(file)  # no two of one name
        inside = [entry for entry in top.iterdir() if entry.name != "__MACOSX"]
        return inside[0] if len(inside) == 1 and inside[0].is_dir() else top
    except UNREADABLE as error:
        raise UserError(f"{what}: {file} is not readable as a zip archive: {error}") from error


def named_roots(image_root: Any) -> list[str]:
    """`image_root` as a list: of one path, or of several. A comma in a path that exists divides nothing."""
    if image_root is None:
        return []
    roots = [str(root) for root in image_root] if isinstance(image_root, list | tuple) else [str(image_root)]
    return [",".join(roots)] if len(roots) > 1 and Path(",".join(roots)).exists() else roots


def _roots(what: str, where: Where, own: ImageRoot) -> ImageRoots:
    """Those that the user names, or the set's own folder. Raises UserError for one that is not there."""
    roots = tuple(_root(what, Path(root).absolute(), where) for root in named_roots(where.image_root))
    return ImageRoots(roots, given=True) if roots else ImageRoots((own,))


def _root(what: str, path: Path, where: Where) -> ImageRoot:
    if path.is_file() and ending_of(path) == ".zip":
        return ImageRoot(top_of(what, path))
    if not path.is_dir():
        raise UserError(f"{what}: {option(f'image_root={path}')} is neither a folder nor a zip archive")
    return ImageRoot(path, _hub_cache(path), _follows(where))


def _follows(where: Where) -> bool:
    return bool(getattr(where, "follow_links", False))  # settings of somebody's own may lack it


def _hub_cache(path: Path) -> Path | None:
    """The hub's cache of a repository, of which `path` is or is in a snapshot: its names are links to files in `blobs`."""
    parents = (*path.parents, *path.resolve().parents)
    caches = (folder.parent for folder in parents if folder.name == "snapshots")
    return next((cache for cache in caches if (cache / "blobs").is_dir()), None)
