"""One process group at a time trains in a run folder: two that write the same files would mix their steps.

The operating system takes the lock back from a process that was killed. Only then may another one have it, so that a requeued job
waits for what is left of the former one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from align.errors import UserError
from align.files import read_json, write_json

PATIENCE = 120.0
"""Seconds to wait for a lock whose holder is dead or on another machine: a network file system notices late that a machine is gone."""
LOCK, HOLDER = ".running.lock", ".running.json"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder on the main process of a launch. Raises UserError that names who holds it."""
    # The main process holds it for all; if it is refused, the launcher ends the others.
    if int(os.environ.get("RANK", "0")) > 0:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        _acquire(lock, folder)
    except PermissionError:
        raise
    except (OSError, NotImplementedError) as error:
        print(
            f"{folder}: this file system has no locks ({error}); start this run once only", file=sys.stderr, flush=True
        )
        yield
        return
    try:
        write_json(
            folder / HOLDER,
            {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")},
        )
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, folder: Path) -> None:
    begun = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=0)
            return
        except Timeout:
            holder = _holder(folder)
        waited = time.monotonic() - begun
        who = "process {pid} on {host}, since {since}".format(**holder) if holder else "another process"
        if _is_alive(holder) or waited > PATIENCE:
            raise UserError(f"{folder}: this run is being trained already by {who}; wait for it, or stop it first")
        if waited < 1:
            print(f"{folder}: held by {who}; waiting up to {PATIENCE:.0f} s for it to end", file=sys.stderr, flush=True)
        time.sleep(1)


def _is_alive(holder: dict[str, Any]) -> bool:
    """Whether the holder is a process of this machine that runs; of another machine's process that is unknown."""
    return holder.get("host") == socket.gethostname() and psutil.pid_exists(int(holder.get("pid", -1)))


def _holder(folder: Path) -> dict[str, Any]:
    """Who holds the lock, where that is written already."""
    with contextlib.suppress(UserError):
        return dict(read_json(folder / HOLDER))
    return {}
