"""A file's stamp, which changes when the file changes."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[int, int, int, int]


def stamp_of(file: Path) -> Stamp:
    """(mtime, ctime, size, inode): tools that keep the mtime (rsync -a, tar) change the other
    numbers. Raises OSError.
    """
    status = file.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
