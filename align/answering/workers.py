"""Processes that share rows: each loads the model on a device of its own, keeps it, and sends answers back as they come.

None outlives the process that asked: not when that is done, nor when it fails, nor when it is killed.
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
from align.answering.generate import generate, load_on
from align.console import quiet_libraries
from align.errors import UserError
from align.fast.seen_images import SeenImages
from align.interruption import end_with_parent
from align.models.loading import Loaded, ModelSource
from align.rows import Row
from align.settings import Generation

PATIENCE = 10.0
"""Seconds that a process may take to end, once it was told to or its pipe is closed, before it is killed."""


@dataclass(frozen=True)
class Failure:
    """What a process sends when it cannot go on."""

    message: str
    explained: bool
    """Whether the message is meant for the user as it stands."""


@dataclass(frozen=True)
class Worker:
    """One of the processes, as its parent sees it."""

    process: SpawnProcess
    connection: Connection
    device: str


class Workers:
    """A process for each of the devices, which may name one several times."""

    def __init__(self, source: ModelSource, generation: Generation, devices: Sequence[str]):
        self.closed = False
        self._workers: list[Worker] = []
        # Not forked: CUDA does not survive it, nor do the threads of torch.
        context = multiprocessing.get_context("spawn")
        threads = max(torch.get_num_threads() // len(devices), 1)
        for device in devices:
            here, there = context.Pipe()
            process = context.Process(target=work, args=(there, source, generation, device, threads), daemon=True)
            process.start()
            there.close()  # the process alone holds it now, so that its end is the end of the pipe
            self._workers.append(Worker(process, here, device))

    def answers(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        """Answers as they come; rows are dealt in turn. Raises UserError when a process ends, after the answers that came."""
        n, working, finished = len(self._workers), [], False
        try:
            for i, worker in enumerate(self._workers):
                if share := rows[i::n]:
                    with contextlib.suppress(OSError):  # it ended meanwhile, which is found below
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
            if not finished:  # also where nobody asks for the rest: later questions must not meet these answers
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
            f"process {self._workers.index(worker) + 1} of {len(self._workers)} that answer rows (on {worker.device}) ended: "
            f"{failure.message}. The others are ended too. The same command goes on with the rows that have no answer yet; if memory ran "
            f"out, give a smaller generation.batch_size= or generation.num_processes="
        )


def _receive(worker: Worker) -> Any:
    """An answer, None after the last one, or a failure."""
    try:
        return worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join(PATIENCE)
        status = worker.process.exitcode
        if status is None or status >= 0:
            return Failure(f"it has exit status {status}", explained=False)
        return Failure(f"it was ended by the signal {signal.Signals(-status).name}", explained=False)


def _came_already(workers: Sequence[Worker]) -> Iterator[Answer | Unanswered]:
    for worker in workers:
        while worker.connection.poll() and isinstance(message := _receive(worker), Answer | Unanswered):
            yield message


def work(connection: Connection, source: ModelSource, generation: Generation, device: str, threads: int) -> None:
    """What a process does: answer the rows that it is sent, until nobody sends any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent ends this process
    threading.Thread(target=end_with_parent, daemon=True).start()
    quiet_libraries()
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
            for answer in generate(loaded.model, loaded.renderer, rows, generation, seen):
                connection.send(answer)
            connection.send(None)
        except BrokenPipeError:
            return  # nobody is there any more
        except UserError as error:
            connection.send(Failure(str(error), explained=True))
            sys.exit(1)
        except Exception as error:
            traceback.print_exc()
            lines = str(error).splitlines() or [""]
            connection.send(Failure(f"{type(error).__name__}: {lines[0]}", explained=False))
            sys.exit(1)
