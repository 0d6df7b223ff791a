"""The progress display of a comparison: rows done, time left, and the stage of each running row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from align.console import Display

Tell = Callable[[str, float], None]
"""(stage of a row, share of the row that is done)"""
TRAINING = 0.7
"""The share of a trained row that is training; the rest is evaluation."""
EARLY = 0.02
"""The time left is not estimated below this share of all work."""


class RowDisplay(Display):
    """The display of one row: converts the progress of its stages to a share of the row."""

    def __init__(self, tell: Tell, trained: bool, benchmarks: int):
        self._tell, self._training, self._benchmarks = tell, TRAINING if trained else 0.0, benchmarks
        self._answered: set[str] = set()

    def step(self, done: int, total: int) -> None:
        """Report that a training step is done."""
        self._tell(f"step {done} of {total}", self._training * done / total)

    def say(self, text: str) -> None:
        """Print a line of this row; printed lines go to the comparison's log."""
        print(text)

    def preparing(self, name: str, done: int, total: int) -> None:
        """Report a stage before the first step."""
        self._tell(name, 0.0)

    def __call__(self, name: str, done: int, total: int, beside: str = "") -> None:
        """Report that some items of a benchmark are done."""
        share = min((len(self._answered) + done / max(total, 1)) / max(self._benchmarks, 1), 1.0)
        self._answered |= {name} if done == total else set()
        self._tell(name, self._training + (1 - self._training) * share)


class Board:
    """All rows of a comparison; `work` is the relative amount of work of each row."""

    def __init__(self, labels: Sequence[str], work: Sequence[float], progress: Progress, console: Console):
        self._labels, self.work = labels, work
        self._shares = [0.0] * len(labels)
        self._begun: dict[int, float] = {}
        self._finished = 0
        self._start = time.monotonic()
        self._progress, self._console = progress, console
        self._all = progress.add_task(f"0 of {len(labels)} rows", total=1.0, beside="")
        self._running: dict[int, TaskID] = {}

    def row(self, index: int, doing: str, share: float) -> None:
        """Show that row `index` has done `share` of its work."""
        if index not in self._running:
            self._begun[index] = time.monotonic()
            self._running[index] = self._progress.add_task("", total=1.0, beside="")
        self._shares[index] = share
        described = escape(f"  {self._labels[index]}")
        self._progress.update(self._running[index], completed=share, description=described, beside=escape(doing))
        self._update()

    def done(self, index: int) -> None:
        """Print a permanent line: row `index` is trained and evaluated."""
        seconds = time.monotonic() - self._begun.pop(index, time.monotonic())
        if index in self._running:
            self._progress.remove_task(self._running.pop(index))
        self._shares[index] = 1.0
        self._finished += 1
        self._update()
        line = f"{self._finished:>3} of {len(self._labels)}  {self._labels[index]}  {seconds:.0f} s"
        left = self._left()
        self._console.print(f"{line}{f', {left}' if left else ''}", markup=False, highlight=False, soft_wrap=True)

    def _update(self) -> None:
        described = f"{self._finished} of {len(self._labels)} rows"
        self._progress.update(self._all, completed=self._share(), description=described, beside=self._left())

    def _share(self) -> float:
        """Share of all work that is done."""
        return sum(w * s for w, s in zip(self.work, self._shares, strict=True)) / sum(self.work)

    def _left(self) -> str:
        """Estimated time left at the present speed; empty when unknown."""
        share = self._share()
        if not EARLY < share < 1:
            return ""
        seconds = (time.monotonic() - self._start) * (1 - share) / share
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


@contextmanager
def board(labels: Sequence[str], work: Sequence[float]) -> Iterator[Board]:
    """A board that is shown while the block runs.

    Without a terminal only finished rows are printed.
    """
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[beside]}"))
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with progress:
        yield Board(labels, work, progress, console)
