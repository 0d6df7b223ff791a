"""Processes that share rows: each loads the model on its own device, keeps it, and returns responses one by one.

They never outlive the parent process, whether it finishes, fails or is killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from align.answering.answer import Answer, Unanswered
from align.answering.generate import Drawing, generate, load_on
from align.console import quiet_libraries, show_log
from align.errors import UserError
from align.fast.seen_images import SeenImages
from align.interruption import end_with_parent
from align.models.loading import Loaded, ModelSource
from align.rows import Row
from align.settings import Generation

PATIENCE = 10.0
"""Seconds that a process has to end, after a signal or after its pipe closes, before it is killed."""


@dataclass(frozen=True)
class Failure:
    """The message of a process that cannot continue."""

    message: str
    explained: bool
    """Whether the message is written for the user."""


@dataclass(frozen=True)
class Worker:
    """The parent's handle of a process."""

    process: SpawnProcess
    connection: Connection
    device: str


class Workers:
    """One process per entry of `devices`; a device may occur several times."""

    def __init__(
        self, source: ModelSource, generation: Generation, devices: Sequence[str], hook: Drawing | None = None
    ):
        self.closed = False
        self._workers: list[Worker] = []
        # Spawn instead of fork: CUDA and torch's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        threads = max(torch.get_num_threads() // len(devices), 1)
        for device in devices:
            here, there = context.Pipe()
            process = context.Process(target=work, args=(there, source, generation, device, threads, hook), daemon=True)
            process.start()
            there.close()  # now only the process holds it, so the pipe closes when the process ends
            self._workers.append(Worker(process, here, device))

    def answers(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        """Results in the order of arrival; rows are distributed in turn. Raises UserError if a
        process ends, after its results.
        """
        n, working, finished = len(self._workers), [], False
        try:
            for i, worker in enumerate(self._workers):
                if share := rows[i::n]:
                    with contextlib.suppress(OSError):  # the process has ended, which is handled below
                        worker.connection.send(share)
                    working.append(worker)
            while working:
                ready = wait([worker.connection for worker in working])
                for worker in [worker for worker in working if worker.connection in ready]:
                    message = _receive(worker)
                    if isinstance(message, Answer | Unanswered):
                        yield message
                        continue
                    working.remove(worker)
                    if isinstance(message, Failure):
                        yield from _came_already(working)
                        raise self._error(worker, message)
            finished = True
        finally:
            if not finished:  # also if the caller stops early: later calls must not receive these results
                self.close()

    def close(self) -> None:
        """End the processes."""
        self.closed = True
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(PATIENCE)
            worker.process.kill()
            worker.process.join()
            worker.connection.close()

    def _error(self, worker: Worker, failure: Failure) -> UserError:
        if failure.explained:
            return UserError(failure.message)
        return UserError(
            f"process {self._workers.index(worker) + 1} of {len(self._workers)} that generate responses (on "
            f"{worker.device}) ended: {failure.message}. The others have been stopped. Run the same command to "
            "continue with rows without a response; if memory ran out, give a smaller generation.batch_size= or "
            "generation.num_processes="
        )


def _receive(worker: Worker) -> Any:
    """A result, None after the last result, or a failure."""
    try:
        return worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join(PATIENCE)
        status = worker.process.exitcode
        if status is None or status >= 0:
            return Failure(f"its exit status is {status}", explained=False)
        return Failure(f"it was ended by the signal {signal.Signals(-status).name}", explained=False)


def _came_already(workers: Sequence[Worker]) -> Iterator[Answer | Unanswered]:
    for worker in workers:
        while worker.connection.poll() and isinstance(message := _receive(worker), Answer | Unanswered):
            yield message


def work(
    connection: Connection,
    source: ModelSource,
    generation: Generation,
    device: str,
    threads: int,
    hook: Drawing | None = None,
) -> None:
    """The main function of a process: generate responses for rows until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends SIGINT to all processes; the parent ends this one
    threading.Thread(target=end_with_parent, daemon=True).start()
    quiet_libraries()
    show_log()
    torch.set_num_threads(threads)
    loaded: Loaded | None = None
    while True:
        try:
            rows = connection.recv()
        except EOFError:
            return
        try:
            if loaded is None:
                loaded = load_on(device, source)
                seen = SeenImages(loaded.model, loaded.family)
            for answer in generate(loaded.model, loaded.renderer, rows, generation, seen, hook):
                connection.send(answer)
            connection.send(None)
        except BrokenPipeError:
            return  # the parent has ended
        except UserError as error:
            connection.send(Failure(str(error), explained=True))
            sys.exit(1)
        except Exception as error:
            traceback.print_exc()
            lines = str(error).splitlines() or [""]
            connection.send(Failure(f"{type(error).__name__}: {lines[0]}", explained=False))
            sys.exit(1)
