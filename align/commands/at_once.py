"""Rows of a comparison side by side, each in a process of its own with its share of the processors.

A process has one thread where as many rows run as there are processors: then what comes out does not depend on the machine's number
of them, since sums are added in one order.
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

from align.commands.board import Board, Tell
from align.console import quiet_libraries
from align.devices import has_gpu, usable_processors
from align.errors import UserError
from align.interruption import end_with_parent
from align.run_folder import RunFolder
from align.settings import CompareConfig, RunConfig

Job = Callable[[Tell], RunFolder]
"""A row: it tells how far it is, and gives its run folder. It can be sent to another process."""
PATIENCE = 5.0
"""Seconds that a process has to end when it is told to."""
NEEDED = (
    "align.training.build",
    "align.methods.sft",
    "align.methods.dpo",
    "align.commands.evaluate",
    "align.answering.local_model",
)
"""Modules that take seconds to import."""
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


def run_rows(jobs: Mapping[int, Job], at_once: int, board: Board) -> list[RunFolder]:
    """The run folders of {index on the board: row}, in their order. The first row that fails ends the others, and its error is raised."""
    if at_once == 1 or len(jobs) < 2:
        return [_run_here(index, job, board) for index, job in jobs.items()]
    context = multiprocessing.get_context(_start_method())
    told = context.Queue()
    workers = min(at_once, len(jobs))
    threads = max(usable_processors() // workers, 1)
    with _pool(workers, context, (told, threads, dict(os.environ))) as pool:
        # The longest first, so that at the end no process waits long for another's last row.
        order = sorted(jobs, key=lambda index: -board.work[index])
        rows = {index: pool.submit(_run, index, jobs[index]) for index in order}
        _listen(rows, told, board)
        return [rows[index].result() for index in jobs]


def _run_here(index: int, job: Job, board: Board) -> RunFolder:
    run = job(partial(board.row, index))
    board.done(index)
    return run


def warm_up() -> None:
    """Import in another process, while this one plans, what rows need: those that run side by side begin with it."""
    if _start_method() == "forkserver":
        multiprocessing.set_forkserver_preload(list(NEEDED))
        forkserver.ensure_running()


def _start_method() -> str:
    """How a process of a row starts: neither CUDA nor macOS's libraries survive a fork."""
    return "forkserver" if sys.platform == "linux" and not has_gpu() else "spawn"


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


def _listen(rows: Mapping[int, Future[RunFolder]], told: Any, board: Board) -> None:
    """Show what rows tell until all are done, or one has failed."""
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
    os.environ.update(environment)  # the server that forked this process may be older than its parent's settings
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent ends this process
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    quiet_libraries()
    _TOLD = told


def _run(index: int, job: Job) -> RunFolder:
    return job(lambda doing, share: _TOLD.put((index, doing, share)))
