"""Find and read run folders -> runs with their evaluations, and notes on unusable ones."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from align.devices import usable_processors
from align.errors import UserError
from align.report.leak_flags import Flags, note_of, read_flags
from align.report.leak_split import split
from align.report.reward_models import is_reward_model
from align.report.run_results import Evaluated
from align.rows import split_view
from align.run_folder import RunFolder


def read_runs(folder: str, leaks: str | None) -> tuple[list[Evaluated], list[str]]:
    """Read the runs below a folder, with rates split by leak flags if given -> (runs, notes).

    Raises UserError.
    """
    if not Path(folder).is_dir():
        raise UserError(f"runs={folder}: not a folder. Give the folder that holds run folders.")
    flags = read_flags(leaks) if leaks else {}
    runs, notes = collect(Path(folder), flags)
    named = {split_view(name)[0] for run in runs for name, of in run.row["results"].items() if "leak_split" in of}
    if flags and not named:
        raise UserError(
            f"leaks={leaks} has flags for {', '.join(flags)}, but no run has a safety benchmark of that name."
        )
    return runs, [*notes, *(note_of(name, of) for name, of in flags.items() if name in named)]


def collect(folder: Path, flags: dict[str, Flags] | None = None) -> tuple[list[Evaluated], list[str]]:
    """Read every run below a folder -> (runs, notes on unusable ones).

    `flags` say which items of a benchmark leak, and split its rates. Raises UserError if there is
    no finished run.
    """
    with _collector_at_rest():
        found = _read_all(sorted(_run_folders(folder)), flags or {})
    runs = [run for run, _ in found if run]
    notes = [note for _, of_run in found for note in of_run]
    if not runs:
        raise UserError(f"runs={folder}: found no finished run" + (f" ({'; '.join(notes)})" if notes else ""))
    return runs, notes


def _run_folders(folder: Path) -> Iterator[Path]:
    for path, below, files in os.walk(folder):
        if "manifest.json" in files:
            yield Path(path)
            below[:] = [name for name in below if name not in OF_RUN]  # large folders without runs


OF_RUN = ("evaluation", "checkpoint", "checkpoints", "curve")


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Turn off Python's cyclic garbage collector: it would scan millions of items for no gain."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # what was read stays until the end
        if was:
            gc.enable()


Read = tuple[Evaluated | None, list[str]]
"""(a run, None if it cannot be used; notes on it)"""
MANY = 100
"""Number of runs from which reading in several processes is faster."""


def _read_all(paths: Sequence[Path], flags: dict[str, Flags]) -> list[Read]:
    """Read one after the other; many runs in several processes."""
    read = partial(_read, flags)
    workers = usable_processors() if sys.platform == "linux" else 1
    if len(paths) < MANY or workers == 1:
        return [read(path) for path in paths]
    # A fork has all modules, and reading needs no thread of this process.
    with ProcessPoolExecutor(min(workers, MOST), multiprocessing.get_context("fork")) as pool:
        return list(pool.map(read, paths, chunksize=AT_ONCE))


AT_ONCE = 25
"""Runs that a process reads before it returns them."""
MOST = 8
"""Most processes: more do not read faster from one disk."""


def _read(flags: dict[str, Flags], path: Path) -> Read:
    run = RunFolder(path)
    try:
        manifest = run.manifest()
        if manifest.get("status") != "finished":
            return None, [f"{run.path}: not finished"]
        found = Evaluated(run, manifest)
    except (UserError, AttributeError) as error:  # a manifest that is not an object has no status
        what = "" if isinstance(error.__cause__, PermissionError) else "damaged: "
        return None, [f"{run.path}: {what}{error}"]
    notes = [*found.drop_damaged(), *split(found, flags)]
    if found.row["stopped"]:
        notes.append(f"{run.path}: {found.row['stopped']}")
    unjudged = not found.row["results"] and not found.row["external"]
    if unjudged and not is_reward_model(found) and not any(run.evaluation.glob("*/summary.*")):
        notes.append(f"{run.path}: not evaluated yet. To evaluate it: align eval run={run.path}")
    return found, notes
