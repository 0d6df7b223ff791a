"""What a person sees while something long runs."""

from __future__ import annotations

import contextlib
import os
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

Report = Callable[[str, int, int], None]
"""(what is being done, how many are done, of how many) -> a progress display"""


def shortened(text: str, letters: int = 160) -> str:
    """The beginning of a text that somebody else wrote, in quotes, on one line."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return repr(shown if len(shown) <= letters else f"{shown[:letters]}...")


class Display:
    """A progress display that shows nothing."""

    def __call__(self, name: str, done: int, total: int, beside: str = "") -> None:
        """So many of what is called `name` are done; `beside` stands next to it."""

    def say(self, text: str) -> None:
        """A line that stays."""


class Named(Display):
    """A display within another: its bars carry a name in front, and lines are not repeated for each of many."""

    def __init__(self, within: Report, name: str):
        self._within, self._name = within, name

    def __call__(self, name: str, done: int, total: int, beside: str = "") -> None:
        """The bar, under the longer name."""
        self._within(f"{self._name} {name}", done, total)


class _Bars(Display):
    def __init__(self, progress: Progress, console: Console):
        self._progress, self._console = progress, console
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, name: str, done: int, total: int, beside: str = "") -> None:
        if not self._tasks:
            self._progress.start()  # a display on which nothing was shown leaves no empty line
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(escape(name), total=total)
        description = escape(f"{name} ({beside})" if beside else name)
        self._progress.update(self._tasks[name], completed=done, total=total, description=description)
        if not self._console.is_terminal and done == total:
            # A log file shows no moving bar until the very end; one line for each thing done tells that it lives.
            self._console.print(f"{description}: {total} done", soft_wrap=True)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line of a training run, printed by the first process of its launch alone."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(text, flush=True)


@contextlib.contextmanager
def progress(stderr: bool = False) -> Iterator[Display]:
    """A display with a bar for each thing reported by name; on stderr where a program reads what is printed."""
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
    """Silence warnings about deprecations among the libraries themselves: nothing that a user of ours could mend."""
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|accelerate)\.")


def quiet_libraries() -> None:
    """Silence the libraries' own bars and advice, where a display of ours shows what goes on."""
    import datasets
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    quiet_deprecations()
