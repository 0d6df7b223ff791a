"""Rows of a comparison side by side, each in a process of its own with its share of the processors.

A process has one thread where as many rows run as there are processors: then what comes out does not depend on the machine's number
of them, since sums are added in one order.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from align.devices import has_gpu, usable_processors
from align.errors import UserError
from align.interruption import end_with_parent
from align.run_folder import RunFolder
from align.screen import Display, Report, quiet_libraries
from align.settings import CompareConfig, RunConfig

Job = Callable[[Report], RunFolder]
"""A row: it tells a display how far it is, and gives its run folder. It can be sent to another process."""
PATIENCE = 5.0
"""Seconds that a process has to end when it is told to."""
LISTENING = 0.2
"""Seconds between two looks at whether a row is done."""


def rows_at_once(config: CompareConfig, runs: Sequence[RunConfig]) -> int:
    """How many rows run at the same time. Raises UserError.

    Where nothing is said: on a CPU the miniature's, whose models are small, as many as there are processors. A limit of calls or of
    money is one for a whole command, and so for one process.
    """
    if config.at_once is not None and config.at_once < 1:
        raise UserError(f"at_once={config.at_once}: expected at least 1")
    if config.at_once is not None:
        return config.at_once
    small = all(run.suite == "miniature" and run.model.path is None for run in runs)
    asked = any(run.evaluate.judge.base_url or run.generation.base_url for run in runs)
    return usable_processors() if small and not asked and not has_gpu() else 1


def run_rows(jobs: Sequence[Job], at_once: int, report: Report) -> list[RunFolder]:
    """The run folders of rows, in their order. The first one that fails ends the others, and its error is raised."""
    if at_once == 1 or len(jobs) < 2:
        return [job(report) for job in jobs]
    context = multiprocessing.get_context("spawn")  # neither CUDA nor torch's threads survive a fork
    told = context.Queue()
    workers = min(at_once, len(jobs))
    threads = max(usable_processors() // workers, 1)
    with _pool(workers, context, (told, threads)) as pool:
        rows = [pool.submit(_run, job) for job in jobs]
        _listen(rows, told, report)
        return [row.result() for row in rows]


@contextmanager
def _pool(workers: int, context: Any, shared: tuple[Any, ...]) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with the block, however it is left: what they have not begun is not begun any more."""
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=shared)
    try:
        yield pool
    except BaseException:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(PATIENCE)
            process.kill()
            process.join()
        raise
    pool.shutdown()


def _listen(rows: Sequence[Future[RunFolder]], told: Any, report: Report) -> None:
    """Pass on what rows tell until all are done, or one has failed."""
    while True:
        done, waiting = wait(rows, timeout=LISTENING)
        while True:
            try:
                report(*told.get_nowait())
            except queue.Empty:
                break
        if not waiting or any(row.exception() for row in done):
            return


class _Told(Display):
    """The display of a process whose parent shows it."""

    def __init__(self, told: Any):
        self._told = told

    def __call__(self, name: str, done: int, total: int, beside: str = "") -> None:
        self._told.put((name, done, total))


_DISPLAY = Display()
"""Of this process, where it is one that runs rows."""


def _begin(told: Any, threads: int) -> None:
    import torch

    global _DISPLAY
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent ends this process
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    quiet_libraries()
    _DISPLAY = _Told(told)


def _run(job: Job) -> RunFolder:
    return job(_DISPLAY)
