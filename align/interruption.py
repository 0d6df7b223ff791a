"""Preemption by a scheduler: SIGTERM or SIGUSR1 -> a checkpoint at the next step, and an exit
status that requests a requeue.

The signal may reach only one of many processes. This process records it, and all processes agree on
it at the end of a step (`Preemption` in align/training/callbacks.py).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from align.complaint import complained

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
EXIT_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h, "try again later": the run is interrupted, not failed; the same command resumes it."""


class Interrupted(Exception):
    """Training was interrupted by a signal and has saved a checkpoint."""


class Notice:
    """Whether this process received a signal to stop."""

    def __init__(self) -> None:
        self.signal: str | None = None
        """The name of the received signal."""
        self.deferred = False
        """Whether code checks `signal` regularly; otherwise a signal ends the process immediately."""

    def listen(self) -> None:
        """From now on, record these signals instead of ending immediately."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, _: Any) -> None:
        self.signal = signal.Signals(number).name
        if not self.deferred:
            if not complained():  # otherwise the launcher ends this process because another process failed
                print(f"{self.signal}: stopped; nothing had to be saved", file=sys.stderr, flush=True)
            sys.exit(EXIT_AGAIN)

    def ignore(self) -> None:
        """From now on, ignore these signals: the process is ending, and a launcher may repeat them."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


NOTICE = Notice()
"""The notice of this process; inactive until a command calls `listen`."""


def end_with_parent() -> None:
    """Wait for the parent's end and end this process. Runs in its own thread, since a killed parent
    cannot end its children.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def begin_worker(then: Callable[[int], None], number: int) -> None:
    """Start a data loader's worker that ignores the signals, then call `then`, its original init function.

    A scheduler sends its signal to every process, which would end torch's workers; but the parent needs
    their rows until the checkpoint is written, and ends them itself.
    """
    NOTICE.ignore()
    then(number)
