"""Progress displays on the console."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG = logging.getLogger(__name__)
Report = Callable[[str, int, int], None]
"""Callback (name, number done, total) that updates a progress display."""


def shortened(text: str, letters: int = 160) -> str:
    """The beginning of an external text, in quotes, on one line."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return repr(shown if len(shown) <= letters else f"{shown[:letters]}...")


class Display:
    """A progress display that shows nothing."""

    def __call__(self, name: str, done: int, total: int, beside: str = "") -> None:
        """Show that `done` of `total` are done for `name`; `beside` is shown next to the name."""

    def say(self, text: str) -> None:
        """Print a permanent line."""


class Named(Display):
    """A display inside another: its bars have a name as prefix, and its lines are not printed."""

    def __init__(self, within: Report, name: str):
        self._within, self._name = within, name

    def __call__(self, name: str, done: int, total: int, beside: str = "") -> None:
        """Update the bar with the prefixed name."""
        self._within(f"{self._name} {name}", done, total)


class _Bars(Display):
    def __init__(self, progress: Progress, console: Console):
        self._progress, self._console = progress, console
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, name: str, done: int, total: int, beside: str = "") -> None:
        if not self._tasks:
            self._progress.start()  # started late, so that an unused display prints no empty line
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(escape(name), total=total)
        description = escape(f"{name} ({beside})" if beside else name)
        self._progress.update(self._tasks[name], completed=done, total=total, description=description)
        if not self._console.is_terminal and done == total:
            # A log file has no moving bar; one line per finished task shows progress.
            self._console.print(f"{description}: {total} done", soft_wrap=True)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a line of a training run, only in the first process of its launch."""
    if int(os.environ.get("RANK", "0")) == 0:
        LOG.info(text)


class _Screen(logging.Handler):
    """Facts on stdout, warnings on stderr, as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message."""
        print(record.getMessage(), file=sys.stderr if record.levelno >= logging.WARNING else sys.stdout, flush=True)


def show_log() -> None:
    """Print what the library logs. Commands call this; a program that imports `align` gets warnings only."""
    log = logging.getLogger("align")
    if not any(isinstance(handler, _Screen) for handler in log.handlers):
        log.addHandler(_Screen())
    log.setLevel(logging.INFO)
    log.propagate = False


@contextlib.contextmanager
def progress(stderr: bool = False) -> Iterator[Display]:
    """A display with one bar per reported name; use stderr if a program reads stdout."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=stderr)
    shown = Progress(*columns, console=console)
    try:
        yield _Bars(shown, console)
    finally:
        if shown.tasks:
            shown.stop()


def quiet_deprecations() -> None:
    """Silence deprecation warnings between the libraries, which a user cannot fix."""
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|accelerate)\.")


def quiet_libraries() -> None:
    """Silence the libraries' own progress bars and advice; our display shows progress."""
    import datasets
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    quiet_deprecations()
