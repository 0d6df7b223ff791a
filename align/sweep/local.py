"""A sweep on this machine: several rows at once, each stage an `align` process on its own GPUs."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from align.console import Display
from align.interruption import EXIT_AGAIN, SIGNALS
from align.settings import SweepConfig
from align.sweep.events import LOCK, last_attempt, log_of, now, why_failed
from align.sweep.state import lacking
from align.sweep.tasks import Row, Task


class Local:
    """The local launcher: runs rows in processes."""

    def __init__(self, config: SweepConfig, display: Display):
        at_once = config.at_once or 1
        share = len(config.devices) // at_once
        self._display, self._at_once = display, at_once
        self._devices: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        for number in range(at_once):
            self._devices.put(config.devices[number * share : (number + 1) * share])
        self._stopped: int | None = None
        self._children: set[subprocess.Popen] = set()
        self._mutex = threading.Lock()

    def run(self, rows: Sequence[Row]) -> int | None:
        """Run the missing tasks of rows -> the signal that stopped the sweep, or None.

        A row that fails does not stop the others.
        """
        wanted = [row for row in rows if any(lacking(task) for task in row.tasks)]
        handlers = {number: signal.signal(number, self._stop) for number in (*SIGNALS, signal.SIGHUP, signal.SIGINT)}
        try:
            with ThreadPoolExecutor(self._at_once) as pool:
                for done, _ in enumerate(pool.map(self._row, wanted), start=1):
                    self._display("rows", done, len(wanted))
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self._stopped

    def _stop(self, number: int, _: object) -> None:
        """Ask every process to save and end, and start no more."""
        self._stopped = number
        for child in list(self._children):
            child.send_signal(number if number in SIGNALS else signal.SIGUSR1)

    def _row(self, row: Row) -> None:
        devices = self._devices.get()
        try:
            for task in row.tasks:
                if self._stopped or (lacking(task) and not self._task(row, task, devices)):
                    return
        except OSError as error:  # affects one row; the others continue
            self._display.say(f"failed: {row.name}: {error}")
        finally:
            self._devices.put(devices)

    def _task(self, row: Row, task: Task, devices: list[str]) -> bool:
        """Run a task -> whether it has its results."""
        task.path.mkdir(parents=True, exist_ok=True)
        with _alone(task.path, lambda: self._stopped is not None) as lock:
            if lock is None:
                return False
            if lacking(task):  # another process may have done it meanwhile
                self._process(task, devices, lock)
        absent = lacking(task)
        if absent and not self._stopped:
            attempt = last_attempt(task.path, task.stage)
            why = why_failed(task.path, task.stage, attempt) if attempt and attempt.status else "; ".join(absent)
            self._display.say(f"failed ({task.stage}): {row.name}: {why}")
        return not absent

    def _process(self, task: Task, devices: list[str], lock: IO[str]) -> None:
        environment = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {})
        arguments = [*task.arguments, *(_of_training() if task.verb == "train" else ())]
        with log_of(task.path, task.stage).open("a", encoding="utf-8") as log:
            job = f"{os.uname().nodename}:{os.getpid()}"
            print(f"=== job {job}, on {','.join(devices) or 'this machine'}, {now()}", file=log, flush=True)
            _note(task, {"job": job, "began": now()})
            with self._mutex:
                child = subprocess.Popen(
                    [sys.executable, "-m", "align.cli", task.verb, *arguments],
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    env=environment,
                    pass_fds=[lock.fileno()],
                    start_new_session=True,  # Ctrl-C signals only the sweep, which passes it on once
                )
                self._children.add(child)
            if self._stopped:  # the signal came while the process started
                child.send_signal(signal.SIGUSR1)
            status = child.wait()
            self._children.discard(child)
        ended_by_us = self._stopped and status in (-signal.SIGUSR1, -signal.SIGTERM)
        _note(
            task,
            {
                "job": job,
                "status": EXIT_AGAIN if ended_by_us else status if status >= 0 else 128 - status,
                "ended": now(),
            },
        )


def _of_training() -> list[str]:
    # Several runs share the machine, so accelerate's default port would conflict.
    return ["evaluate_afterwards=false", f"launch.main_process_port={_free_port()}"]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _note(task: Task, event: dict[str, object]) -> None:
    with (task.path / "jobs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"stage": task.stage, **event}) + "\n")


@contextmanager
def _alone(folder: Path, stopped: Callable[[], bool]) -> Iterator[IO[str] | None]:
    """Wait for the lock of a folder; None if this sweep is stopped first."""
    with (folder / LOCK).open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if stopped():
                    yield None
                    return
                time.sleep(1)
        yield file
