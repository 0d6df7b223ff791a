"""A lock for a run folder: only one process group trains in it at a time, because two would mix
their steps in the same files.

The operating system releases the lock of a killed process. Until then a requeued job waits for the
remaining processes of the previous job.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from align.errors import UserError
from align.files import read_json, write_json

LOG = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds to wait for a lock whose holder has ended or is on another machine: a network file system
detects a lost machine late.
"""
LOCK, HOLDER = ".running.lock", ".running.json"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder in the main process of a launch. Raises UserError that names the current holder."""
    # The main process holds the lock for all processes; if this fails, the launcher ends the others.
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
        LOG.warning(f"{folder}: this file system has no locks ({error}); do not start this run twice")
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


def wait_until_free(folder: Path) -> None:
    """Wait while another process trains in a run folder, however long it takes."""
    lock = FileLock(folder / LOCK)
    if not (folder / LOCK).is_file():
        return
    try:
        lock.acquire(timeout=0)
    except Timeout:
        LOG.warning(f"{folder}: {_named(_holder(folder))} trains this run; waiting for it to end")
        lock.acquire()
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
        who = _named(holder)
        if _is_alive(holder) or waited > PATIENCE:
            raise UserError(f"{folder}: this run is already being trained by {who}; wait for it, or stop it first")
        if waited < 1:
            LOG.warning(f"{folder}: locked by {who}; waiting up to {PATIENCE:.0f} s for it to end")
        time.sleep(1)


def _named(holder: dict[str, Any]) -> str:
    return "process {pid} on {host}, since {since}".format(**holder) if holder else "another process"


def _is_alive(holder: dict[str, Any]) -> bool:
    """Whether the holder is a running process of this machine; unknown (False) for another machine."""
    return holder.get("host") == socket.gethostname() and psutil.pid_exists(int(holder.get("pid", -1)))


def _holder(folder: Path) -> dict[str, Any]:
    """The holder of the lock, if it is recorded already."""
    with contextlib.suppress(UserError):
        return dict(read_json(folder / HOLDER))
    return {}
