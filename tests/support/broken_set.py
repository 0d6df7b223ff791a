"""A small set that is damaged: its values and image paths before it is written, its archives and links afterwards."""

from __future__ import annotations

import contextlib
import copy
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.support.damaged_files import damage_archive, damage_bytes, rewritten
from tests.support.damages import Case, Damage
from tests.support.odd_images import as_pil, images, png
from tests.support.set_files import IMAGE, encoded, write, write_folder
from tests.support.small_sets import pristine

CANARY_COLOUR = (255, 0, 254)
"""Of the image outside the set."""


def _value(value: Any) -> Any:
    if value == "1 MB":
        return "long " * 200_000
    if isinstance(value, str) and value.startswith("nested "):
        nested: Any = []
        for _ in range(int(value.split()[1])):
            nested = [nested]
        return nested
    return copy.deepcopy(value)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (object or list, key or number in it) of records."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _places(item)


def lists_of(value: Any) -> list[list[Any]]:
    """The lists of records that an index has."""
    return [value] if isinstance(value, list) else [part for part in value.values() if isinstance(part, list)]


class Broken:
    """A set while it is being damaged."""

    def __init__(self, case: Case, root: Path):
        self.case, self.root = case, root
        made = pristine(case.layout)
        self.values = copy.deepcopy(made.indexes)
        self.files = dict(made.files)
        self.shown: dict[str, np.ndarray | None] = {name: as_pil(content) for name, content in made.files.items()}
        """{image: the pixels that it stands for; None where it must be refused}"""
        self.folders: set[str] = set()
        self.links: list[tuple[str, Path]] = []
        self.late: list[Damage] = []
        self.unsure: set[str] = set()
        """Images of which nobody can say what they stand for."""
        self.loose = False
        """Whether bytes of a container are damaged, so that its plain reading says not what is to be expected."""
        write_folder({"canary.png": png(*CANARY_COLOUR)}, root / "outside")

    def make(self) -> Path:
        for what, place, how in self.case.damages:
            if what in ("value", "record", "path"):
                getattr(self, f"_{what}")(place, how)
            elif what.startswith("image"):
                self._image(what, place, how)
            else:
                self.late.append((what, place, how))
        held = {index: self._encoded(index) for index in self.values}
        for what, place, how in self.late:
            index = list(held)[place % len(held)] if held else None
            if index is None:
                continue
            if what == "bytes":
                held[index] = damage_bytes(held[index], how)
            elif what == "whole":
                held[index] = rewritten(held[index], how)
            elif what == "key twice":
                held[index] = re.sub(rb'{("[^"]+")', rb'{\1: "the first of two", \1', held[index], count=1 + how[1] % 3)
            elif (what, how) == ("file", "index absent"):
                del held[index]
        self.held = held
        path = write(held | self.files, self.case.form, self.root)
        for name in self.folders:
            if path.is_dir():
                (path / name).mkdir(parents=True, exist_ok=True)
        for name, target in self.links:
            with contextlib.suppress(OSError, ValueError):  # a name that no file can have
                if path.is_dir() and not (path / name).exists():
                    (path / name).parent.mkdir(parents=True, exist_ok=True)
                    (path / name).symlink_to(target)
        for what, place, how in self.late:
            if what == "archive":
                self._archive(path, place, how)
            elif what == "file" and how.endswith("linked out"):
                self._linked_out(path, how)
        return path

    def _encoded(self, index: str) -> bytes:
        try:
            return encoded(index, self.values[index], self.files)
        except (pa.ArrowException, TypeError, AttributeError, ValueError, OverflowError, UnicodeEncodeError, csv.Error):
            # What the format cannot hold cannot damage it.
            return encoded(index, pristine(self.case.layout).indexes[index], self.files)

    def _value(self, place: int, how: Any) -> None:
        index = list(self.values)[place % len(self.values)]
        places = [at for records in lists_of(self.values[index]) for at in _places(records)]
        if not places:
            return
        holder, key = places[(place // 7) % len(places)]
        if isinstance(how, str) and how == "absent":
            del holder[key]
        else:
            holder[key] = _value(how)
            if index.endswith(".parquet") and isinstance(key, str):  # a column has one type
                with contextlib.suppress(AttributeError, TypeError, ValueError, OverflowError, pa.ArrowException):
                    pa.array([record.get(key) for record in self.values[index]])
                    return
                for record in self.values[index]:
                    if isinstance(record, dict):
                        record[key] = _value(how)

    def _record(self, place: int, how: Damage) -> None:
        index = list(self.values)[place % len(self.values)]
        lists = lists_of(self.values[index])
        if not lists or how[0] == "none left":
            self.values[index] = []
            return
        records = lists[place % len(lists)]
        if not records:
            return
        what, at = how[0], how[1] % len(records)
        if what == "repeat":
            records.insert(at, copy.deepcopy(records[at]))
        elif what == "remove":
            del records[at]
        elif what == "key twice":
            self.late.append(("key twice", place, how))
        else:
            records[at] = {"number": 7, "list": ["x"], "null": None, "text": "x"}[what]

    def _path(self, place: int, how: str) -> None:
        found = [
            (index, holder, key)
            for index, value in self.values.items()
            for records in lists_of(value)
            for holder, key in _places(records)
            if isinstance(holder[key], str) and holder[key].lower().endswith(IMAGE)
        ]
        if not found:
            return
        _, holder, key = found[place % len(found)]
        name = holder[key]
        folder = "/".join(next((file for file in self.files if file.endswith(name)), name).split("/")[:-1])
        below = name.rpartition("/")[0]
        prefix = f"{below}/" if below else ""
        outside = self.root / "outside" / "canary.png"
        up = "../" * 4
        links = {"link out": outside, "folder linked out": outside.parent, "link in a circle": Path("circle.png")}
        if how == "link inside":
            links[how] = Path(name.rpartition("/")[2])
        if how in links:
            link = {"folder linked out": "out", "link in a circle": "circle.png"}.get(how, "link.png")
            self.links.append((f"{folder}/{link}" if folder else link, links[how]))
            holder[key] = f"{prefix}{link}" + ("/canary.png" if how == "folder linked out" else "")
            return
        if how == "a folder":
            self.folders.add(f"{folder}/folder.png" if folder else "folder.png")
        first, _, rest = name.partition("/")
        holder[key] = {
            "absolute": str(outside),
            "above": f"{prefix}../../../outside/canary.png",
            "above, backslashes": "..\\..\\outside\\canary.png",
            "absolute, backslashes": str(outside).replace("/", "\\"),
            "above, and in again": f"{up}{str(outside).lstrip('/')}",
            "home": "~/canary.png",
            "url": f"file://{outside}",
            "blank": "  ",
            "NUL": f"{name}\0.png",
            "surrogate": "\ud800.png",
            "5,000 characters": "x" * 5000 + ".png",
            "300 characters": f"{prefix}{'x' * 300}.png",
            "deep": "x/" * 3000 + "x.png",
            "the folder itself": ".",
            "a folder": f"{prefix}folder.png",
            "other case": name.upper(),
            "detour": f"{first}/../{name}" if rest else f"./{name}",
        }[how]

    def _image(self, what: str, place: int, how: Any) -> None:
        if not self.files:
            return
        name = sorted(self.files)[place % len(self.files)]
        if what == "image bytes":
            if how[0] != "cut" and not self.files[name].startswith(b"\x89PNG"):
                self.unsure.add(name)  # other formats have no check sums
            self.files[name] = damage_bytes(self.files[name], how)
        elif how in ("absent", "a folder"):
            del self.files[name]
            self.shown.pop(name)
            if how == "a folder":
                self.folders.add(name)
        else:
            self.files[name], self.shown[name] = images()[how]

    def _archive(self, path: Path, place: int, how: Damage) -> None:
        archives = (
            [path] if path.is_file() else [file for file in sorted(path.iterdir()) if file.suffix in (".zip", ".tar")]
        )
        if not archives or not archives[place % len(archives)].is_file():
            return
        self.loose = True
        damage_archive(archives[place % len(archives)], how, self.root / "outside" / "canary.png")

    def _linked_out(self, path: Path, how: str) -> None:
        """An index file or an archive that is a link to one outside, which holds the same."""
        if not path.is_dir():
            return
        names = (
            list(self.held)
            if how.startswith("index")
            else [file.name for file in path.iterdir() if file.suffix in (".zip", ".tar")]
        )
        for name in names[:1]:
            if (path / name).is_file():
                (path / name).rename(self.root / "outside" / Path(name).name)
                (path / name).symlink_to(self.root / "outside" / Path(name).name)
                self.loose = True
