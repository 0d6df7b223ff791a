"""Archives, read in place: nothing is unpacked, so no member can be written outside a folder."""

from __future__ import annotations

import functools
import os
import posixpath
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from align.data.files.formats import ARCHIVES, PACKED, ending_of, unpacking
from align.data.files.stamp import Stamp, stamp_of

MAX_BYTES = 1 << 30
"""A larger member is not read into memory."""
ENDINGS = ARCHIVES


READING = threading.RLock()
"""Threads that share a file position would read each other's members. zipfile has its own lock for
this, tarfile has not.
"""


def _renew_lock() -> None:
    """Replace the lock in a forked process, which would otherwise wait forever for a reading thread of its parent."""
    global READING
    READING = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def archive(file: Path) -> zipfile.ZipFile:
    """An open zip archive. Raises BadZipFile."""
    with READING:
        opened = _archive(str(file), stamp_of(file), os.getpid())
    if not isinstance(opened, zipfile.ZipFile):
        raise zipfile.BadZipFile("not a zip archive")
    return opened


@functools.lru_cache(maxsize=32)
def _archive(file: str, stamp: Stamp, process: int) -> zipfile.ZipFile | tarfile.TarFile:
    # One open file per process: forked processes share file positions, as threads do.
    return tarfile.open(file, "r:") if ending_of(Path(file)) == ".tar" else zipfile.ZipFile(file)


def members(file: Path) -> Mapping[str, str]:
    """{normalised name: name in the archive} of its files: tar writes `./imgs/0.png` for `imgs/0.png`.

    Raises ValueError if two members have the same name, or an error of zipfile or tarfile.
    """
    with READING:
        return _members(str(file), stamp_of(file))


@functools.lru_cache(maxsize=32)
def _members(file: str, stamp: Stamp) -> Mapping[str, str]:
    opened = _archive(file, stamp, os.getpid())
    if isinstance(opened, zipfile.ZipFile):
        names = [info.filename for info in opened.infolist() if not info.is_dir()]
    else:
        names = [info.name for info in opened.getmembers() if not info.isdir()]
    found = {posixpath.normpath(name): name for name in names}
    if len(found) < len(names):
        twice = next(name for name, count in Counter(map(posixpath.normpath, names)).items() if count > 1)
        raise ValueError(
            f"two members have the name {twice!r}, so the name is ambiguous; create the archive again with unique names"
        )
    return found


def content(file: Path, name: str) -> bytes:
    """The bytes of a member. Raises KeyError, ValueError, or an error of zipfile or tarfile."""
    with READING:
        opened = _archive(str(file), stamp_of(file), os.getpid())
        member = members(file)[name]
        if isinstance(opened, tarfile.TarFile):
            _refuse_large(opened.getmember(member).size)
            held = opened.extractfile(member)
            if held is None:  # a link without a target in the archive
                raise ValueError(f"{member} is not a file")
            return held.read()
    _refuse_large(opened.getinfo(member).file_size)
    return opened.read(member)


def _refuse_large(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"its size is {size:,} bytes, expected at most {MAX_BYTES:,}")


def not_unpacked(absent: Path) -> str | None:
    """What to do if an absent file is in an archive that is not read in place; None if there is no such archive."""
    for folder in absent.parents:
        if folder.parent.is_dir():
            packed = (folder.parent / f"{folder.name}{ending}" for ending in PACKED)
            found = next((file for file in packed if file.is_file()), None) if not folder.exists() else None
            return f"{found} exists: {unpacking(found.name)}" if found else None
    return None


def within(folder: str, name: str) -> str | None:
    """The member for `name` in a folder of an archive; None if the name leads outside."""
    name = name.replace("\\", "/")
    member = posixpath.normpath(posixpath.join(folder, name))
    outside = posixpath.isabs(name) or member == ".." or member.startswith("../")
    return None if outside or (folder and not f"{member}/".startswith(f"{folder.rstrip('/')}/")) else member
