"""Start a program of vLLM's environment that never outlives its parent: `python guarded.py <pipe> <arguments of python>`.

A guard waits for the end of a pipe that only the parent holds, and ends the process group. It is a
process, not a thread, because an engine that hangs may hold Python's lock. This file imports nothing
of this package.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

PATIENCE = 5.0
"""Seconds between SIGTERM and SIGKILL."""


def main() -> None:
    """Fork the guard, and become the program."""
    guard(int(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])


def guard(pipe: int) -> None:
    """Fork a process that ends this group when the other end of `pipe` closes."""
    if os.fork():
        os.close(pipe)
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for own in (0, 1, 2):  # otherwise the parent waits for this process when it reads to the end
        os.close(own)
    os.read(pipe, 1)
    os.killpg(0, signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    while not _alone() and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(0, signal.SIGKILL)


def _alone() -> bool:
    """Whether this process group has no other process."""
    own, group = os.getpid(), os.getpgid(0)
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) != own:
            with contextlib.suppress(OSError):  # it has just ended
                if os.getpgid(int(process.name)) == group and _state(process) != "Z":
                    return False
    return True


def _state(process: Path) -> str:
    return (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2][:1]


if __name__ == "__main__":
    main()
