"""Run rows of a comparison in parallel, each in its own process with a share of the processors.

With as many rows as processors, each process has one thread. Sums are then added in one order, so
results do not depend on the number of processors.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver
from typing import Any

from align.commands.arms import is_miniature
from align.commands.board import Board, Tell
from align.console import quiet_libraries, show_log
from align.devices import has_gpu, usable_processors
from align.errors import UserError
from align.interruption import end_with_parent
from align.run_folder import RunFolder
from align.settings import CompareConfig, RunConfig

Job = Callable[[Tell], RunFolder]
"""A row: reports its progress and returns its run folder. It can be pickled."""
PATIENCE = 5.0
"""Seconds that a process has to end after SIGTERM."""
NEEDED = (
    "align.training.build",
    "align.methods.sft",
    "align.methods.dpo",
    "align.commands.evaluate",
    "align.answering.local_model",
)
"""Modules that take seconds to import."""
LISTENING = 0.2
"""Seconds between two checks whether a row is done."""


def rows_at_once(config: CompareConfig, runs: Sequence[RunConfig]) -> int:
    """Number of rows that run at the same time. Raises UserError.

    Default: one row per processor for the miniature's models on a CPU, otherwise 1. Limits of calls
    and cost are per command, so judges and models at an endpoint run in one process.
    """
    if config.at_once is not None and config.at_once < 1:
        raise UserError(f"at_once={config.at_once}: expected at least 1")
    if config.at_once is not None:
        return config.at_once
    small = all(is_miniature(run) and run.model.path is None for run in runs)
    asked = any(run.evaluate.judge.base_url or run.generation.base_url for run in runs)
    return usable_processors() if small and not asked and not has_gpu() else 1


def run_rows(jobs: Mapping[int, Job], at_once: int, board: Board) -> list[RunFolder]:
    """Run {index on the board: row} -> run folders in the same order.

    The first row that fails stops the others, and its error is raised.
    """
    if at_once == 1 or len(jobs) < 2:
        return [_run_here(index, job, board) for index, job in jobs.items()]
    context = multiprocessing.get_context(_start_method())
    told = context.Queue()
    workers = min(at_once, len(jobs))
    threads = max(usable_processors() // workers, 1)
    with _pool(workers, context, (told, threads, dict(os.environ))) as pool:
        # Longest first, so that at the end no process waits long for the last row.
        order = sorted(jobs, key=lambda index: -board.work[index])
        rows = {index: pool.submit(_run, index, jobs[index]) for index in order}
        _listen(rows, told, board)
        return [rows[index].result() for index in jobs]


def _run_here(index: int, job: Job, board: Board) -> RunFolder:
    run = job(partial(board.row, index))
    board.done(index)
    return run


def warm_up() -> None:
    """Start importing the modules that rows need in another process, while this one plans."""
    if _start_method() == "forkserver":
        multiprocessing.set_forkserver_preload(list(NEEDED))
        forkserver.ensure_running()


def _start_method() -> str:
    """Start method of row processes: neither CUDA nor macOS libraries survive a fork."""
    return "forkserver" if sys.platform == "linux" and not has_gpu() else "spawn"


@contextmanager
def _pool(workers: int, context: Any, shared: tuple[Any, ...]) -> Iterator[ProcessPoolExecutor]:
    """A process pool that ends with the block; after an error, rows that wait are not started."""
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


def _listen(rows: Mapping[int, Future[RunFolder]], told: Any, board: Board) -> None:
    """Show the progress of rows until all are done or one has failed."""
    left = dict(rows)
    while left:
        done, _ = wait(left.values(), timeout=LISTENING, return_when=FIRST_COMPLETED)
        while True:
            try:
                index, doing, share = told.get_nowait()
            except queue.Empty:
                break
            if index in left:
                board.row(index, doing, share)
        for index in [index for index, row in left.items() if row in done]:
            if left.pop(index).exception():
                return
            board.done(index)


_TOLD: Any = None
"""The queue to the parent, in a process that runs rows."""


def _begin(told: Any, threads: int, environment: Mapping[str, str]) -> None:
    import torch

    global _TOLD
    os.environ.clear()
    os.environ.update(environment)  # the fork server may have started before the parent set variables
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal signals all processes; the parent ends this one
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    quiet_libraries()
    show_log()
    _TOLD = told


def _run(index: int, job: Job) -> RunFolder:
    return job(lambda doing, share: _TOLD.put((index, doing, share)))
