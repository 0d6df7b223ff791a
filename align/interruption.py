"""A scheduler takes the machine back: SIGTERM or SIGUSR1 -> a checkpoint at the next step, and an exit status that asks to be run again.

The signal may reach one process of many, so it is noted where it arrives, and all agree on it at the end of a step (`Preemption` in
align/training/callbacks.py).
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
"""EX_TEMPFAIL of sysexits.h, "try again later": the run is interrupted, not broken; the same command goes on with it."""


class Interrupted(Exception):
    """Training was asked to stop and has saved itself."""


class Notice:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.signal: str | None = None
        """The name of the signal that asked."""
        self.deferred = False
        """Whether somebody looks at `signal` soon; while nobody does, a signal ends the process at once."""

    def listen(self) -> None:
        """From now on note these signals instead of dying of them."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, _: Any) -> None:
        self.signal = signal.Signals(number).name
        if not self.deferred:
            if not complained():  # otherwise the launcher ends this process, since another one failed
                print(f"{self.signal}: stopped; there was nothing to save", file=sys.stderr, flush=True)
            sys.exit(EXIT_AGAIN)

    def ignore(self) -> None:
        """From now on do not hear them: the process is ending, and a launcher may repeat itself."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


NOTICE = Notice()
"""This process's; it hears nothing until `listen` is called, which only commands do."""


def end_with_parent() -> None:
    """Wait for the end of the parent, in a thread of its own, and end this process: a parent that is killed cannot end its children."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def begin_worker(then: Callable[[int], None], number: int) -> None:
    """A data loader's worker begins, with what it is otherwise told to do `then`: its parent, which needs its rows until the checkpoint is
    written, ends it. A scheduler sends its signal to every process, and torch's workers would die of it.
    """
    NOTICE.ignore()
    then(number)
