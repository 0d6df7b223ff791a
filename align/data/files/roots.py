"""Where the images of a data set are looked up: folders and zip archives, which an image path does not leave."""

from __future__ import annotations

import os
import posixpath
import zipfile
from dataclasses import dataclass
from pathlib import Path

from align.data.files import archive
from align.data.files.image_bytes import exists
from align.data.files.records import UNREADABLE, File
from align.data.hints import option
from align.errors import UserError
from align.rows import ImageRef


@dataclass(frozen=True)
class ImageRoot:
    """One folder, or a folder in a zip archive."""

    at: File
    bound: Path | None = None
    """What links may lead into, where that is more than the folder: the hub's cache links from a snapshot to the files beside it."""
    follow_links: bool = False
    """Whether links in the folder may lead out of it. A path itself may not."""

    def image(self, name: str, where: str) -> ImageRef:
        """The image that a set calls `name`, there or not. Raises UserError where it would lie outside."""
        if "\0" in name:
            raise UserError(f"{where}: image path {name[:80]!r} holds a character that no file name can")
        if isinstance(self.at, zipfile.Path):
            member = archive.within(self.at.at, name)
            if member is None:
                raise self._outside(name, where)
            return ImageRef(path=str(self.at.root.filename), inside=member)
        plain = Path(os.path.normpath(self.at / name))
        try:
            path = (plain if self.follow_links else self.at / name).resolve()
            there = path.exists()
        except (OSError, RuntimeError) as error:  # a name too long, links in a circle
            said = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{where}: image path {name[:80]!r} cannot be followed: {said}") from error
        within = plain.is_relative_to(os.path.normpath(self.at)) and self.follow_links
        if not within and not path.is_relative_to((self.bound or self.at).resolve()):
            raise self._outside(name, where, plain)
        return (None if there else self._archived(name)) or ImageRef(path=str(path))

    def has(self, name: str) -> bool:
        """Whether there is a folder `name`, or an archive in its place."""
        return any((self.at / f"{name}{end}").exists() for end in ("", *archive.ENDINGS))

    def found(self, name: str, where: str) -> ImageRef | None:
        """`image` if it is there: `coco/train2017/0.jpg`, which in a folder .../coco/train2017 may be `0.jpg`. Raises UserError."""
        own, parts = Path(str(self.at)).parts, name.split("/")
        names = [name, *("/".join(parts[k:]) for k in range(1, len(parts)) if list(own[-k:]) == parts[:k])]
        images = (self.image(called, where) for called in names if self._may_have(called))
        return next((image for image in images if exists(image)), None)

    def _may_have(self, name: str) -> bool:
        """Whether it is worth looking, told by the first folder of the name alone: several roots are asked for each image."""
        if isinstance(self.at, zipfile.Path):
            return True
        first = posixpath.normpath(name).partition("/")[0]
        return any(os.path.lexists(self.at / f"{first}{end}") for end in ("", *archive.ENDINGS))

    def _archived(self, name: str) -> ImageRef | None:
        """`train/a.png` in train.zip or train.tar, where the archive that a set came in was not unpacked."""
        assert isinstance(self.at, Path)
        folder, parts = self.at, posixpath.normpath(name).split("/")
        while len(parts) > 1 and (folder / parts[0]).exists():
            folder, parts = folder / parts[0], parts[1:]
        places = (folder / f"{parts[0]}{end}" for end in archive.ENDINGS)
        file = next((file for file in places if len(parts) > 1 and file.is_file()), None)
        if file is None:
            return None
        refuse_outside(file, self.bound or self.at, self.follow_links)
        try:
            held = archive.members(file)
        except UNREADABLE as error:
            raise UserError(f"{file} cannot be read: {error}") from error
        whole = "/".join(parts)
        return ImageRef(path=str(file), inside=whole if whole in held else "/".join(parts[1:]))

    def _outside(self, name: str, where: str, path: Path | None = None) -> UserError:
        said = f"{where}: image path {name[:80]!r} leads outside its folder {self.at}"
        link = link_out_of(self.at, path, self.bound or self.at) if path and isinstance(self.at, Path) else None
        if link:
            return UserError(f"{said}: {link} is a link to {link.resolve()}. {_remedy()}")
        return UserError(f"{said}; keep images inside it, or set {option('image_root=<folder>')}")


@dataclass(frozen=True)
class ImageRoots:
    """All of them, in the order in which they were given."""

    roots: tuple[ImageRoot, ...]
    given: bool = False
    """Whether the user named them, as image_root=; else the one root is the set's own folder."""

    def image(self, name: str, where: str) -> ImageRef:
        """The image that a set calls `name`; absent, it is named in the first root. Raises UserError where two roots have others."""
        if not self.given:
            return self.roots[0].image(name, where)
        found = dict.fromkeys(image for root in self.roots if (image := root.found(name, where)))
        if len(found) > 1:
            raise UserError(
                f"{where}: image path {name[:80]!r} is in several image roots, as {' and '.join(str(one.name) for one in found)}; "
                f"remove one of the files, or one of the folders from {option('image_root=')}"
            )
        return next(iter(found), None) or self.roots[0].image(name, where)

    def has(self, name: str) -> bool:
        """Whether one of them has a folder `name`, or an archive in its place."""
        return any(root.has(name) for root in self.roots)


def refuse_outside(file: File, folder: File, follow_links: bool) -> None:
    """Raises UserError for a link out of a folder: what comes with a set does not say which other files are read."""
    if not isinstance(file, Path) or not isinstance(folder, Path):
        return
    try:
        leads_to = file.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise UserError(f"{file} cannot be followed: {error}") from error
    if not follow_links and not leads_to.is_relative_to(folder.resolve()):
        raise UserError(f"{file} is a link to {leads_to}, outside {folder}. {_remedy()}")


def link_out_of(root: Path, path: Path, bound: Path) -> Path | None:
    """The first link on the way from a folder to a path in it that leads out of `bound`; None if none does."""
    place = Path(os.path.normpath(root))
    if not path.is_relative_to(place):
        return None
    for part in path.relative_to(place).parts:
        place = place / part
        if place.is_symlink() and not place.resolve().is_relative_to(bound.resolve()):
            return place
    return None


def _remedy() -> str:
    return f"If you made the link, allow it by {option('follow_links=true')}; else put the file itself there"
