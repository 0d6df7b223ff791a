"""Damage to a small set: which there is (hypothesis strategies), and how it is done."""

from __future__ import annotations

import contextlib
import copy
import csv
import math
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from tests.support.odd_images import as_pil, images, png
from tests.support.small_sets import (
    IMAGE,
    LAYOUTS,
    add_member,
    encoded,
    forms_of,
    pristine,
    write,
    write_folder,
    write_zip,
)

CANARY_COLOUR = (255, 0, 254)
"""Of the image outside the set."""

# Damages: (what, where, how). Places are any numbers, taken modulo what there is.

Damage = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """A set and what is done to it."""

    layout: str
    form: str
    damages: tuple[Damage, ...]


PLACE = st.integers(0, 9999)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 7, 10**40, 1.0, 0.5, math.nan, math.inf]),
    st.sampled_from(["", " ", "\n\t", "None", "nan", "x", "\ud800", "a\udfff", "\0", "é\u2028", "<image>", "../x"]),
    st.sampled_from([[], {}, [None], [[]], ["x"], [1], {"a": 1}, {"path": None}, {"bytes": 5, "path": "x"}, [{}]]),
    st.sampled_from(["1 MB", "nested 50", "nested 900"]),
    st.text(max_size=4),
)
BYTES = st.one_of(
    st.tuples(st.just("cut"), PLACE),
    st.tuples(st.just("flip"), PLACE, st.integers(0, 7)),
    st.tuples(st.just("insert"), PLACE, st.binary(min_size=1, max_size=3)),
    st.tuples(st.just("insert"), PLACE, st.sampled_from([b'"', b"\n", b"{", b"}", b",", b"\xff", b"\0", b" ", b"\r"])),
    st.tuples(st.just("remove"), PLACE, st.integers(1, 9)),
)
WHOLE = st.sampled_from(
    ["utf-16", "utf-16-le", "latin-1", "mark", "mac lines", "windows lines", "spaces behind", "empty", "brackets"]
)
RECORD = st.one_of(
    st.tuples(st.sampled_from(["repeat", "remove", "number", "list", "null", "text", "key twice"]), PLACE),
    st.tuples(st.just("none left")),
)
PATHS = (
    "absolute",
    "above",
    "above, backslashes",
    "absolute, backslashes",
    "above, and in again",
    "home",
    "url",
    "blank",
    "NUL",
    "surrogate",
    "5,000 characters",
    "300 characters",
    "deep",
    "the folder itself",
    "a folder",
    "link out",
    "folder linked out",
    "link inside",
    "link in a circle",
    "other case",
    "detour",
)
ARCHIVE = st.one_of(
    st.tuples(st.just("bytes"), BYTES),
    st.tuples(st.sampled_from(["member above", "absolute member", "member twice", "password", "bad CRC"]), PLACE),
    st.tuples(st.sampled_from(["smaller than it is", "larger than it is", "far too large"]), PLACE),
    st.tuples(st.sampled_from(["no archive", "links out"]), PLACE),
)
DAMAGES: dict[str, st.SearchStrategy[Damage]] = {
    "bytes of an index": st.tuples(st.just("bytes"), PLACE, BYTES) | st.tuples(st.just("whole"), PLACE, WHOLE),
    "values": st.tuples(st.just("value"), PLACE, VALUES | st.just("absent")),
    "records": st.tuples(st.just("record"), PLACE, RECORD),
    "image paths": st.tuples(st.just("path"), PLACE, st.sampled_from(PATHS)),
    "images": st.tuples(st.just("image"), PLACE, st.sampled_from([*sorted(images()), "absent", "a folder"])),
    "bytes of an image": st.tuples(st.just("image bytes"), PLACE, BYTES),
    "archives": st.tuples(st.just("archive"), PLACE, ARCHIVE),
    "files": st.tuples(
        st.just("file"), PLACE, st.sampled_from(["index absent", "index linked out", "archive linked out"])
    ),
}


@st.composite
def cases(draw: st.DrawFn, kind: str) -> Case:
    """A set with one damage of a kind, and in a third of the cases others beside it."""
    layout = draw(st.sampled_from([*LAYOUTS.values()]))
    forms = forms_of(layout)
    if kind == "archives" and len(forms) > 1:
        forms = forms[1:]
    damages = [draw(DAMAGES[kind])]
    if draw(st.integers(0, 2)) == 0:
        damages += draw(st.lists(st.one_of(*DAMAGES.values()), min_size=1, max_size=2))
    return Case(layout.name, draw(st.sampled_from(forms)), tuple(damages))


def damage_bytes(content: bytes, how: Damage) -> bytes:
    what, place, *rest = how
    at = place % (len(content) + 1)
    if what == "cut":
        return content[:at]
    if what == "flip":
        at = min(at, len(content) - 1)
        return content[:at] + bytes([content[at] ^ (1 << rest[0])]) + content[at + 1 :] if content else content
    if what == "insert":
        return content[:at] + rest[0] + content[at:]
    return content[:at] + content[at + rest[0] :]


def _rewritten(content: bytes, how: str) -> bytes:
    if how in ("empty", "brackets"):
        return b"[" * 100_000 if how == "brackets" else b""
    if how == "spaces behind":
        return content + b" \n\n"
    if how == "mark":
        return b"\xef\xbb\xbf" + content
    if how.endswith("lines"):
        return content.replace(b"\n", b"\r" if how.startswith("mac") else b"\r\n")
    try:
        text = content.decode()
    except UnicodeDecodeError:  # parquet
        return content
    return text.replace("a", "\u00e9", 1).encode(how, "replace")


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
                held[index] = _rewritten(held[index], how)
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
        file = archives[place % len(archives)]
        what, *rest = how
        self.loose = True
        content = file.read_bytes()
        if what == "bytes":
            file.write_bytes(damage_bytes(content, rest[0]))
        elif what == "no archive":
            file.write_bytes(b"<html>not found</html>")
        elif file.suffix == ".tar":
            self._tar_member(file, what, rest[0])
        else:
            self._zip_member(file, what, rest[0])

    def _tar_member(self, file: Path, what: str, place: int) -> None:
        with contextlib.suppress(tarfile.TarError), tarfile.open(file, "a") as archive:
            names = archive.getnames()
            if what == "links out":
                info = tarfile.TarInfo("./link.png")
                info.type, info.linkname = tarfile.SYMTYPE, str(self.root / "outside" / "canary.png")
                archive.addfile(info)
            elif what == "member twice" and names:
                add_member(archive, names[place % len(names)], png(1, 2, 3))
            else:
                add_member(archive, "../outside.png" if what == "member above" else "/outside.png", png(1, 2, 3))

    def _zip_member(self, file: Path, what: str, place: int) -> None:
        members: list[tuple[str, bytes]] = []
        with (
            contextlib.suppress(zipfile.BadZipFile, RuntimeError, OSError, zlib.error),
            zipfile.ZipFile(file) as archive,
        ):
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        if not members:  # damaged already
            return
        name = members[place % len(members)][0]
        if what in ("member above", "absolute member", "links out"):
            extra = {"member above": "../outside.png", "absolute member": "/outside.png"}.get(what, "link.png")
            write_zip([*members, (extra, png(1, 2, 3))], file)
        elif what == "member twice":
            other = png(1, 2, 3) if name.endswith(IMAGE) else b"[]"
            write_zip([*members, (name, other)], file)
        else:
            _patch(file, name, what)

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


def _patch(file: Path, name: str, what: str) -> None:
    """Change what a zip archive says of a member, in both places where it says it."""
    content = bytearray(file.read_bytes())
    raw = name.encode()
    # (signature, offset of the flags, of the CRC, of the size, of the name)
    for mark, flags, crc, size, at in ((b"PK\x03\x04", 6, 14, 22, 30), (b"PK\x01\x02", 8, 16, 24, 46)):
        start = content.find(mark)
        while start >= 0:
            if content[start + at : start + at + len(raw)] == raw:
                if what == "password":
                    content[start + flags] |= 1
                elif what == "bad CRC":
                    content[start + crc] ^= 0xFF
                else:
                    (now,) = struct.unpack_from("<I", content, start + size)
                    said = {"smaller than it is": now // 2, "larger than it is": now + 9}.get(what, 0xFFFFFFF0)
                    struct.pack_into("<I", content, start + size, said)
            start = content.find(mark, start + 1)
    file.write_bytes(content)
