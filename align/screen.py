"""What a person sees while something long runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
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


@contextlib.contextmanager
def progress() -> Iterator[Report]:
    """A display with a bar for each thing reported by name; yields `report(name, done, total)`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console()
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as display:

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = display.add_task(name, total=total)
            display.update(tasks[name], completed=done, total=total)
            if not console.is_terminal and done == total:
                # A log file shows no moving bar until the very end; one line for each thing done tells that it lives.
                console.print(f"{name}: {total} done")

        yield report


def quiet_libraries() -> None:
    """Silence the libraries' own bars and advice, where a display of ours shows what goes on."""
    import warnings

    import datasets
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    # Deprecations among the libraries themselves: nothing that a user of ours could mend.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|accelerate)\.")
