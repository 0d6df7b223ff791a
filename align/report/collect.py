"""Run folders below a folder -> runs with their evaluations, and notes on what could not be used."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

from align.data.views import split_view
from align.errors import UserError
from align.report.evaluated import Evaluated
from align.report.leak_flags import Flags, note_of, read_flags
from align.report.leak_split import split
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
    runs: list[Evaluated] = []
    notes: list[str] = []
    with _collector_at_rest():
        for manifest in sorted(folder.rglob("manifest.json")):
            _add(RunFolder(manifest.parent), flags or {}, runs, notes)
    if not runs:
        raise UserError(f"runs={folder}: no finished run in it" + (f" ({'; '.join(notes)})" if notes else ""))
    return runs, notes


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


def _add(run: RunFolder, flags: dict[str, Flags], runs: list[Evaluated], notes: list[str]) -> None:
    """One run more, or a note on why it is none."""
    try:
        if not run.finished():
            notes.append(f"{run.path}: not finished")
            return
        found = Evaluated(run)
    except (UserError, AttributeError) as error:  # a manifest that is no object has no status
        notes.append(f"{run.path}: damaged: {error}")
        return
    notes += [*found.drop_damaged(), *split(found, flags)]
    if found.row["stopped"]:
        notes.append(f"{run.path}: {found.row['stopped']}")
    if not found.row["results"] and not found.row["external"] and not any(run.evaluation.glob("*/summary.*")):
        notes.append(f"{run.path}: not evaluated yet; align eval run={run.path}")
    runs.append(found)
