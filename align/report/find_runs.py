"""Run folders below a folder -> runs with their evaluations, and notes on what could not be used."""

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
from align.report.run_results import Evaluated
from align.rows import split_view
from align.run_folder import RunFolder


def read_runs(folder: str, leaks: str | None) -> tuple[list[Evaluated], list[str]]:
    """The runs below a folder, their rates split by leak flags if there are any -> (runs, notes). Raises UserError."""
    if not Path(folder).is_dir():
        raise UserError(f"runs={folder}: not a folder")
    flags = read_flags(leaks) if leaks else {}
    runs, notes = collect(Path(folder), flags)
    named = {split_view(name)[0] for run in runs for name, of in run.row["results"].items() if "leak_split" in of}
    if flags and not named:
        raise UserError(f"leaks={leaks}: it is of {', '.join(flags)}, and no run has a safety set of that name")
    return runs, [*notes, *(note_of(name, of) for name, of in flags.items() if name in named)]


def collect(folder: Path, flags: dict[str, Flags] | None = None) -> tuple[list[Evaluated], list[str]]:
    """Every run below a folder -> (runs, notes on what could not be used). Raises UserError where there is none.

    `flags` say of sets which items leak, and split their rates.
    """
    with _collector_at_rest():
        found = _read_all(sorted(_run_folders(folder)), flags or {})
    runs = [run for run, _ in found if run]
    notes = [note for _, of_run in found for note in of_run]
    if not runs:
        raise UserError(f"runs={folder}: no finished run in it" + (f" ({'; '.join(notes)})" if notes else ""))
    return runs, notes


def _run_folders(folder: Path) -> Iterator[Path]:
    for path, below, files in os.walk(folder):
        if "manifest.json" in files:
            yield Path(path)
            below[:] = [name for name in below if name not in OF_RUN]  # no run is in them, and much else


OF_RUN = ("evaluation", "checkpoint", "checkpoints", "curve")


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Python's search for circles would go through millions of items again and again, none of which is in one."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # and what was read stays till the end
        if was:
            gc.enable()


Read = tuple[Evaluated | None, list[str]]
"""(A run, None where it cannot be used; notes on it)"""
MANY = 100
"""Runs from which on it pays to start processes for reading them."""


def _read_all(paths: Sequence[Path], flags: dict[str, Flags]) -> list[Read]:
    """One after the other, or where there are many in as many processes as there are processors."""
    read = partial(_read, flags)
    workers = usable_processors() if sys.platform == "linux" else 1
    if len(paths) < MANY or workers == 1:
        return [read(path) for path in paths]
    # A fork has all modules already, and what it does needs no thread of this process.
    with ProcessPoolExecutor(min(workers, MOST), multiprocessing.get_context("fork")) as pool:
        return list(pool.map(read, paths, chunksize=AT_ONCE))


AT_ONCE = 25
"""Runs that a process reads before it hands them over."""
MOST = 8
"""Processes: more do not read faster from one disk."""


def _read(flags: dict[str, Flags], path: Path) -> Read:
    run = RunFolder(path)
    try:
        manifest = run.manifest()
        if manifest.get("status") != "finished":
            return None, [f"{run.path}: not finished"]
        found = Evaluated(run, manifest)
    except (UserError, AttributeError) as error:  # a manifest that is no object has no status
        what = "" if isinstance(error.__cause__, PermissionError) else "damaged: "
        return None, [f"{run.path}: {what}{error}"]
    notes = [*found.drop_damaged(), *split(found, flags)]
    if found.row["stopped"]:
        notes.append(f"{run.path}: {found.row['stopped']}")
    if not found.row["results"] and not found.row["external"] and not any(run.evaluation.glob("*/summary.*")):
        notes.append(f"{run.path}: not evaluated yet; align eval run={run.path}")
    return found, notes
