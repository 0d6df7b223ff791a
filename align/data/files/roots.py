"""Image roots: folders and zip archives with the images of a dataset. An image path must stay inside its root."""

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
    """The folder that links must stay inside, if larger than `at`: in the Hub's cache, a snapshot
    links to files outside it.
    """
    follow_links: bool = False
    """Whether links in the folder may point outside it. A path itself may not."""

    def image(self, name: str, where: str) -> ImageRef:
        """The image `name` of the dataset, whether it exists or not. Raises UserError if it is outside the root."""
        if "\0" in name:
            raise UserError(
                f"{where}: image path {name[:80]!r} contains a NUL character, which no file name can contain"
            )
        if isinstance(self.at, zipfile.Path):
            member = archive.within(self.at.at, name)
            if member is None:
                raise self._outside(name, where)
            return ImageRef(path=str(self.at.root.filename), inside=member)
        plain = Path(os.path.normpath(self.at / name))
        try:
            path = (plain if self.follow_links else self.at / name).resolve()
            there = path.exists()
        except (OSError, RuntimeError) as error:  # a name that is too long, cyclic links
            said = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{where}: image path {name[:80]!r} cannot be resolved: {said}") from error
        within = plain.is_relative_to(os.path.normpath(self.at)) and self.follow_links
        if not within and not path.is_relative_to((self.bound or self.at).resolve()):
            raise self._outside(name, where, plain)
        return (None if there else self._archived(name)) or ImageRef(path=str(path))

    def has(self, name: str) -> bool:
        """Whether the root has a folder `name`, or an archive with this name."""
        return any((self.at / f"{name}{end}").exists() for end in ("", *archive.ENDINGS))

    def found(self, name: str, where: str) -> ImageRef | None:
        """`image` if it exists: in a folder .../coco/train2017, `coco/train2017/0.jpg` may be
        `0.jpg`. Raises UserError.
        """
        own, parts = Path(str(self.at)).parts, name.split("/")
        names = [name, *("/".join(parts[k:]) for k in range(1, len(parts)) if list(own[-k:]) == parts[:k])]
        images = (self.image(called, where) for called in names if self._may_have(called))
        return next((image for image in images if exists(image)), None)

    def _may_have(self, name: str) -> bool:
        """A fast check, by the first folder of the name, whether to search this root: each image
        may be in several roots.
        """
        if isinstance(self.at, zipfile.Path):
            return True
        first = posixpath.normpath(name).partition("/")[0]
        return any(os.path.lexists(self.at / f"{first}{end}") for end in ("", *archive.ENDINGS))

    def _archived(self, name: str) -> ImageRef | None:
        """`train/a.png` in train.zip or train.tar, if the dataset's archive was not unpacked."""
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
        return UserError(f"{said}; move the image inside it, or set {option('image_root=<folder>')}")


@dataclass(frozen=True)
class ImageRoots:
    """All image roots, in the given order."""

    roots: tuple[ImageRoot, ...]
    given: bool = False
    """Whether the user named them with image_root=; otherwise the only root is the dataset's own folder."""

    def image(self, name: str, where: str) -> ImageRef:
        """The image `name`; an absent image is named in the first root. Raises UserError if several
        roots have different files.
        """
        if not self.given:
            return self.roots[0].image(name, where)
        found = dict.fromkeys(image for root in self.roots if (image := root.found(name, where)))
        if len(found) > 1:
            raise UserError(
                f"{where}: image path {name[:80]!r} is in several image roots: "
                f"{' and '.join(str(one.name) for one in found)}; "
                f"remove one of the files, or one of the folders from {option('image_root=')}"
            )
        return next(iter(found), None) or self.roots[0].image(name, where)

    def has(self, name: str) -> bool:
        """Whether a root has a folder `name`, or an archive with this name."""
        return any(root.has(name) for root in self.roots)


def refuse_outside(file: File, folder: File, follow_links: bool) -> None:
    """Raise UserError for a link that points outside a folder: a dataset must not choose which other files are read."""
    if not isinstance(file, Path) or not isinstance(folder, Path):
        return
    try:
        leads_to = file.resolve()
    except (OSError, RuntimeError) as error:  # cyclic links
        raise UserError(f"{file} cannot be resolved: {error}") from error
    if not follow_links and not leads_to.is_relative_to(folder.resolve()):
        raise UserError(f"{file} is a link to {leads_to}, outside {folder}. {_remedy()}")


def link_out_of(root: Path, path: Path, bound: Path) -> Path | None:
    """The first link between a folder and a path in it that points outside `bound`; None if no link does."""
    place = Path(os.path.normpath(root))
    if not path.is_relative_to(place):
        return None
    for part in path.relative_to(place).parts:
        place = place / part
        if place.is_symlink() and not place.resolve().is_relative_to(bound.resolve()):
            return place
    return None


def _remedy() -> str:
    return f"If you created the link, allow it with {option('follow_links=true')}; otherwise replace it with the file itself"
