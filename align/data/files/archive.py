"""Archives that are read where they lie: nothing is unpacked, so no member can be written outside a folder."""

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

from align.data.files.formats import ARCHIVES, ending_of
from align.data.files.stamp import Stamp, stamp_of

MAX_BYTES = 1 << 30
"""A member that says it is larger is not unpacked into memory."""
ENDINGS = ARCHIVES


READING = threading.RLock()
"""Threads that share a position in a file would read each other's members; zipfile has a lock of its own for that, tarfile has none."""


def _renew_lock() -> None:
    """A process that is forked while a thread of its parent reads would wait for that thread for ever."""
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
    # One for each process: what is said of threads above is true of processes that were forked.
    return tarfile.open(file, "r:") if ending_of(Path(file)) == ".tar" else zipfile.ZipFile(file)


def members(file: Path) -> Mapping[str, str]:
    """{name: what the archive calls it} of its files: tar writes `./imgs/0.png` for what a set calls `imgs/0.png`.

    Raises ValueError where two have one name, or one of the errors of zipfile and tarfile.
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
            f"it holds two members called {twice!r}, of which it does not say which is meant; pack it anew"
        )
    return found


def content(file: Path, name: str) -> bytes:
    """What a member holds. Raises KeyError, ValueError or one of the errors of zipfile and tarfile."""
    with READING:
        opened = _archive(str(file), stamp_of(file), os.getpid())
        member = members(file)[name]
        if isinstance(opened, tarfile.TarFile):
            _refuse_large(opened.getmember(member).size)
            held = opened.extractfile(member)
            if held is None:  # a link that leads nowhere in the archive
                raise ValueError(f"{member} is no file")
            return held.read()
    _refuse_large(opened.getinfo(member).file_size)
    return opened.read(member)


def _refuse_large(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"it says that it holds {size:,} bytes; at most {MAX_BYTES:,} are read")


def within(folder: str, name: str) -> str | None:
    """The member that `name` means in a folder of an archive; None where it leads outside."""
    name = name.replace("\\", "/")
    member = posixpath.normpath(posixpath.join(folder, name))
    outside = posixpath.isabs(name) or member == ".." or member.startswith("../")
    return None if outside or (folder and not f"{member}/".startswith(f"{folder.rstrip('/')}/")) else member
