"""Print an error once, even if several processes of a launch raise it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from filelock import FileLock

FILE = "VSIL_ALIGN_COMPLAINTS"
"""Environment variable: path of a file that all processes of `align train` on one machine share."""


def complain(message: str, prefix: str = "error: ") -> None:
    """Print an error, unless another process of this launch already printed it."""
    line = f"{prefix}{message}\n"
    if file := os.environ.get(FILE):
        with FileLock(f"{file}.lock"), Path(file).open("a+", encoding="utf-8") as said:
            said.seek(0)
            if line in said.read():
                return
            said.write(line)
    sys.stderr.write(line)
    sys.stderr.flush()


def complained() -> bool:
    """Whether a process of this launch printed an error.

    The launcher then ends the other processes.
    """
    file = os.environ.get(FILE)
    return bool(file) and Path(str(file)).is_file() and Path(str(file)).stat().st_size > 0
