"""The location of a dataset's files: a folder, a zip archive of a folder, a file, or a snapshot of the Hub."""

from __future__ import annotations

import fnmatch
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from align.config.paths import is_hub_id
from align.data.files import archive
from align.data.files.embedded import is_written_out, refuse_url, written_out
from align.data.files.formats import KNOWN, PACKED, TABLES, ending_of, ending_of_name, unpacking
from align.data.files.hub import snapshot
from align.data.files.image_bytes import exists
from align.data.files.parquet import INSIDE
from align.data.files.records import UNREADABLE, File, Record, as_text, shown
from align.data.files.roots import ImageRoot, ImageRoots, refuse_outside
from align.data.files.tables import records
from align.data.hints import option
from align.errors import UserError
from align.rows import ImageRef


class DataLocation(Protocol):
    """Settings for the location of files; a part of the training data and a benchmark both have them."""

    path: str | None
    image_root: Any
    """One folder or zip archive, or a list of them."""
    revision: str | None
    follow_links: bool


@dataclass(frozen=True)
class DataFolder:
    """A dataset's files."""

    what: str
    """The owner of the files, for error messages."""
    root: File
    """The folder, or the folder in an archive."""
    images: ImageRoots
    """The folders or archives that image paths are relative to."""
    index: Path | None = None
    """The file, if `path` names a file."""
    bound: Path | None = None
    """The folder that files must stay inside, if not `root`: in the Hub's cache, a snapshot links
    to files outside it.
    """
    follow_links: bool = False
    """Whether links may point outside the folder."""

    @classmethod
    def open(
        cls, what: str, where: DataLocation, hub: str | None = None, patterns: Sequence[str] | None = None
    ) -> DataFolder:
        """The files at `where.path`; `hub` is the dataset's id on the Hub, `patterns` the files to
        download. Raises UserError.
        """
        if where.path is None:
            there = f", {option(f'path={hub}')} {option('revision=<commit>')} to read it from the Hub" if hub else ""
            raise UserError(
                f"{what}: no files given; give {option('path=<folder, file or zip archive>')}{there}, or "
                "data_root=<folder that holds datasets by name>"
            )
        path, index = Path(where.path), None
        if where.revision is not None and path.exists():
            raise UserError(
                f"{what}: {option(f'revision={where.revision}')} is for datasets on the Hub, but "
                f"{option(f'path={path}')} is on this "
                f"machine; remove revision="
            )
        if not path.exists() and is_hub_id(where.path) and ending_of_name(path.name) not in KNOWN:
            path = snapshot(where.path, where.revision, what, patterns)
        if not path.exists():
            raise UserError(f"{what}: {option(f'path={path}')} does not exist; correct the path")
        path = path.absolute()  # the names of images must not depend on the working directory
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
        """Whether a file or folder with this name exists."""
        return (self.root / name).exists()

    def holding(self, names: Sequence[str], places: Sequence[str]) -> DataFolder:
        """The folder with one of the files `names`: this folder, or a folder or zip archive in it
        with a name in `places`.

        Returns this folder if none has one. Raises UserError for a link that points outside the
        folder.
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
        """The files of the first pattern with a match, sorted: `train.json`,
        `data/train-*.parquet`. Raises UserError.
        """
        if self.index is not None:
            return [self.index]
        for pattern in patterns:
            if found := self._matching(pattern):
                for file in found:
                    refuse_outside(file, self.bound or self.root, self.follow_links)
                return found
        raise UserError(f"{self.what}: no file {' or '.join(patterns)} in {self.root}")

    def records(self, *patterns: str, part: str | None = None) -> Iterator[Record]:
        """The records of the files of the first pattern with a match; see
        align/data/files/records.py. Raises UserError.
        """
        yield from self._records(self.files(*patterns), part)

    def rows(self) -> Iterator[Record]:
        """The records of the file, or of all tables of the folder, with any names. Raises UserError."""
        yield from self._records(self._tables())

    def _records(self, files: Sequence[File], part: str | None = None) -> Iterator[Record]:
        for file in files:
            empty = True
            for record in records(file, part):
                empty = False
                yield record
            if empty:
                raise UserError(f"{self.what}: no rows in {file}")

    def _tables(self) -> list[File]:
        """The tables of a folder, which must have one format. Raises UserError."""
        if self.index is not None:
            return [self.index]
        found: dict[str, list[File]] = {}
        for file in self._matching("*"):
            found.setdefault(ending_of_name(file.name), []).append(file)
        tables = {ending: files for ending, files in found.items() if ending in TABLES}
        if len(tables) > 1:
            named = ", ".join(files[0].name for files in tables.values())
            raise UserError(
                f"{self.what}: {self.root} has tables of several formats ({named}), expected one format; name one "
                f"file: {option('path=<file>')}"
            )
        if not tables:
            raise UserError(f"{self.what}: no table ({', '.join(TABLES)}) in {self.root}")
        (files,) = tables.values()
        for file in files:
            refuse_outside(file, self.bound or self.root, self.follow_links)
        return files

    def image(self, name: str, where: str) -> ImageRef:
        """The image `name` of the dataset, whether it exists or not. Raises UserError for a URL, or a name
        outside the folder.
        """
        refuse_url(name, f"{where}: the image")
        return self.images.image(name, where)

    def find_image(self, names: Sequence[str], places: Sequence[str], where: str) -> ImageRef:
        """The image with one of `names`, in the first of the folders `places` that has it, or
        directly in the image folder.

        If none exists, returns the first name in the first folder (directly in `image_root`, if
        given). Raises UserError.
        """
        prefixes = [*(f"{place}/" for place in places), ""]
        if self.images.given:
            prefixes.reverse()
        tried = [self.image(prefix + name, where) for name in names for prefix in prefixes]
        return next((image for image in tried if exists(image)), tried[0])

    def cell(self, record: Record, column: str) -> ImageRef:
        """The only image in a record's column: bytes in a parquet file, or a path. Raises UserError."""
        found = self.cells(record, column)
        if len(found) != 1:
            raise UserError(f"{record.where}: `{column}` has {len(found)} images, expected one")
        return found[0]

    def cells(self, record: Record, column: str) -> tuple[ImageRef, ...]:
        """The images in a record's column: paths, base64, bytes in a parquet file, or lists of these.

        Raises UserError.
        """
        value = record.get(column)
        values = value if isinstance(value, list) else [] if value in (None, "") else [value]
        return tuple(self._cell(item, record, column) for item in values)

    def _cell(self, item: object, record: Record, column: str) -> ImageRef:
        if isinstance(item, dict) and INSIDE in item:
            return ImageRef(path=str(record.file), inside=str(item[INSIDE]))
        if isinstance(item, dict) and isinstance(item.get("bytes"), str):  # `datasets` writes base64 to json
            return ImageRef(path=str(written_out(item["bytes"], f"{record.where}: `{column}`")))
        name = item.get("path") if isinstance(item, dict) else item
        if not isinstance(name, str) or not name:
            raise UserError(f"{record.where}: `{column}` is {shown(item)}, expected a path or an image")
        name = as_text(name, column, record.where)
        if is_written_out(name):
            return ImageRef(path=str(written_out(name, f"{record.where}: `{column}`")))
        return self.image(name, record.where)

    def _matching(self, pattern: str) -> list[File]:
        if isinstance(self.root, zipfile.Path):
            # The only folder in an archive may be a folder of the dataset itself, like PKU-SafeRLHF's `data`.
            return _members(self.root, pattern) or _members(zipfile.Path(self.root.root), pattern)
        # Compare names: a broken link means absent rows and must be found, but a glob for one name skips it.
        parent, _, last = pattern.rpartition("/")
        return [
            file for file in sorted(self.root.glob(f"{parent}/*".lstrip("/"))) if fnmatch.fnmatchcase(file.name, last)
        ]


def _members(folder: zipfile.Path, pattern: str) -> list[File]:
    names = [name for name in folder.root.namelist() if name.startswith(folder.at)]
    inner = [name.removeprefix(folder.at) for name in names]
    return [folder / name for name in sorted(inner) if _fits(name, pattern)]


def _fits(name: str, pattern: str) -> bool:
    """Match like a folder's glob: a star does not match a slash."""
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def top_of(what: str, file: Path) -> zipfile.Path:
    """The folder with an archive's files: the archive itself, or the only folder in it. Raises UserError."""
    try:
        top = zipfile.Path(archive.archive(file))
        archive.members(file)  # raises if two members have the same name
        inside = [entry for entry in top.iterdir() if entry.name != "__MACOSX"]
        return inside[0] if len(inside) == 1 and inside[0].is_dir() else top
    except UNREADABLE as error:
        raise UserError(f"{what}: {file} cannot be read as a zip archive: {error}") from error


def named_roots(image_root: Any) -> list[str]:
    """`image_root` as a list of paths. A comma in an existing path does not split it."""
    if image_root is None:
        return []
    roots = [str(root) for root in image_root] if isinstance(image_root, list | tuple) else [str(image_root)]
    return [",".join(roots)] if len(roots) > 1 and Path(",".join(roots)).exists() else roots


def _roots(what: str, where: DataLocation, own: ImageRoot) -> ImageRoots:
    """The image roots that the user names, or the dataset's own folder. Raises UserError for an absent one."""
    roots = tuple(_root(what, Path(root).absolute(), where) for root in named_roots(where.image_root))
    return ImageRoots(roots, given=True) if roots else ImageRoots((own,))


def _root(what: str, path: Path, where: DataLocation) -> ImageRoot:
    if path.is_file() and ending_of(path) == ".zip":
        return ImageRoot(top_of(what, path))
    if path.is_file() and ending_of(path) in PACKED:
        raise UserError(f"{what}: {option(f'image_root={path}')}: {unpacking(path.name)}")
    if not path.is_dir():
        raise UserError(f"{what}: {option(f'image_root={path}')}: expected a folder or a zip archive")
    return ImageRoot(path, _hub_cache(path), _follows(where))


def _follows(where: DataLocation) -> bool:
    return bool(getattr(where, "follow_links", False))  # a user's own settings class may not have it


def _hub_cache(path: Path) -> Path | None:
    """The Hub's cache of a repository, if `path` is in one of its snapshots, where names are links
    to files in `blobs`.
    """
    parents = (*path.parents, *path.resolve().parents)
    caches = (folder.parent for folder in parents if folder.name == "snapshots")
    return next((cache for cache in caches if (cache / "blobs").is_dir()), None)
