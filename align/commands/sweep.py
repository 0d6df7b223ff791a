"""`align sweep`: run a grid, on this machine or on a SLURM cluster; the same command resumes it."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from align.config.compose import compose
from align.config.merge import Composed
from align.errors import UserError
from align.interruption import EXIT_AGAIN
from align.settings import SweepConfig
from align.sweep.cells import Cell, cells_of
from align.sweep.folder import Plan, SweepFolder
from align.sweep.grid import Grid, read_grid
from align.sweep.rows import needed_by, rows_of
from align.sweep.state import DONE, FAILED, Queue, State, counted, states_of
from align.sweep.tasks import TRAIN, Row

SHOWN = 20
"""Most rows or lines that are shown one by one."""
AS_STAGES = {
    stage: f"<{stage}>" for stage in ("train", "validate", "validated", "evaluate", "judge", "choose", "previous")
}
"""Placeholders for job ids before jobs are submitted."""


def main(arguments: Sequence[str]) -> int:
    """Show, run or submit the missing runs of a grid. Raises UserError.

    Returns 1 if a run of a local sweep failed, 75 after a signal to stop, 130 after Ctrl-C.
    """
    if not any(argument.startswith(("recipe=", "grid=")) for argument in arguments):
        return _of_folder(arguments)
    grid = read_grid(arguments)
    config, folder = grid.config, SweepFolder(Path(grid.config.output_dir))
    cells = cells_of(grid)
    rows = rows_of(grid, cells)
    if config.status:
        states = states_of(rows, _queue(folder))
        _show(folder, states)
        return 0
    if config.finish:
        raise UserError("finish=true works on an existing sweep. Give it with output_dir= alone.")
    print(_size(grid, cells, rows), flush=True)
    _check_rows(cells)
    if config.dry_run:
        _show_cost(grid, cells, rows, folder)
        return _dry_run(folder, Plan(rows, len(rows), config.tune, []), grid)
    with folder.locked():
        _show_cost(grid, cells, rows, folder)  # raises for runs that cannot be trained
        plan = folder.write(rows, config.tune, ["align", "sweep", *arguments])
        return _submit(folder, plan, config) if config.launcher == "slurm" else _run(folder, plan, config)


def _of_folder(arguments: Sequence[str]) -> int:
    """Show or finish an existing sweep, given only its folder."""
    keys = {argument.split("=")[0] for argument in arguments}
    if keys - {"output_dir", "status", "finish"} or len(keys & {"status", "finish"}) != 1:
        raise UserError(
            "recipe= and grid= are missing. Give recipe=<names> or grid=<file>; or, for an existing sweep, "
            "output_dir=<folder> with status=true or finish=true."
        )
    config: SweepConfig = compose(SweepConfig, arguments).config
    folder = SweepFolder(Path(config.output_dir).resolve())
    if config.finish:
        from align.sweep.finish import finish

        finish(folder, _queue(folder))
    else:
        plan = folder.read()
        _show(folder, states_of(plan.current, _queue(folder)))
        if earlier := len(plan.rows) - len(plan.current):
            print(f"Rows of earlier grids in this folder, not shown: {earlier}")
    return 0


def _check_rows(cells: Sequence[Cell]) -> None:
    """Check the rows of every run, each data set once, if they are on this machine.

    Raises UserError.
    """
    from align.console import quiet_libraries
    from align.training.prepare import look_over

    quiet_libraries()
    alike: dict[str, Cell] = {}
    for cell in cells:
        values = {key: cell.values[key] for key in ("recipe", "method", "model", "data", "view", "track", "on_bad_row")}
        alike.setdefault(json.dumps([values, cell.values["train"].get("max_length")], sort_keys=True), cell)
    for cell in alike.values():
        print(f"{cell.values['recipe']} on {cell.values['model']['name']}: {_checked(cell, look_over)}", flush=True)


def _checked(cell: Cell, look_over: Callable[[Composed], str]) -> str:
    try:
        return look_over(cell.composed())
    except UserError as error:
        raise UserError(f"{cell.values['recipe']} on {cell.values['model']['name']}: {error}") from error


def _queue(folder: SweepFolder) -> Queue:
    """Jobs of a sweep in SLURM's queue; empty if the sweep was never submitted."""
    if not folder.submissions.is_dir():
        return {}
    if shutil.which("squeue") is None:
        print("squeue is not installed here, so queued and running jobs are unknown", file=sys.stderr)
        return {}
    from align.sweep.slurm.planning import queue_of

    return queue_of(folder)[0]


def _size(grid: Grid, cells: Sequence[Cell], rows: Sequence[Row]) -> str:
    axes = " x ".join(_axis(len(values), key) for key, values in grid.axes.items())
    beside = sum(not row.chosen for row in rows) - len(cells)
    others = f", plus {beside} without training" if beside else ""
    tuned = f"; {', '.join(grid.config.tune)} chosen by validation" if grid.config.tune else ""
    runs = "run" if len(cells) == 1 else "runs"
    return f"{len(cells)} {runs} ({axes}){others}{tuned}; {grid.config.output_dir}"


def _axis(number: int, key: str) -> str:
    """2 recipes; 3 values of train.learning_rate."""
    s = "" if number == 1 else "s"
    return f"{number} {key}{s}" if key in ("recipe", "model", "method", "seed") else f"{number} value{s} of {key}"


def _show_cost(grid: Grid, cells: Sequence[Cell], rows: Sequence[Row], folder: SweepFolder) -> None:
    states = states_of(rows, _queue(folder))
    print(f"Status: {counted(states)}", flush=True)
    if not grid.config.hours:
        return
    from align.console import quiet_libraries
    from align.sweep.cost import cost_of, gpus_of

    quiet_libraries()
    untrained = {state.row.path for state in states if state.what != DONE and state.stage == TRAIN}
    left, gpus = [cell for cell in cells if cell.path in untrained], gpus_of(grid.config)
    for what, of in (("total", cells), ("remaining", left)):
        cost = cost_of(of, gpus)
        hours = " or ".join(f"{_hours(hours)} of {gpu}" for gpu, hours in cost.hours.items())
        told = hours if hours else "unknown" if of else "none"
        print(
            f"GPU hours of training, {what}, estimated: {told} (runs: {len(of)}, GPUs of each: {gpus}; details: align "
            "plan)",
            flush=True,
        )
        if cost.unknown and of is cells:
            print("\n".join(f"  runs not counted: {number}, {why}" for why, number in cost.unknown.items()))
        if of is cells and (needed := sorted({name for cell in cells for name in needed_by(cell)})):
            print(f"Not counted: the training of reward models that runs need ({', '.join(needed)})")
        if left == list(cells):
            return


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}" if hours >= 0.01 else "less than 0.01"


def _show(folder: SweepFolder, states: Sequence[State]) -> None:
    """Show the status of the grid, then each row that is not done."""
    from rich.console import Console
    from rich.table import Table

    from align.sweep.finish import write_status

    if folder.path.is_dir():
        write_status(folder, states)
    console = Console(soft_wrap=True)
    console.print(f"{folder.output_dir}: {counted(states)}", highlight=False, markup=False)
    table = Table("state", "stage", "row", "why")
    others = [state for state in states if state.what != DONE]
    for state in others[:SHOWN] if len(states) > 2 * SHOWN else others:
        axes = " ".join(f"{key}={value}" for key, value in state.row.axes.items())
        table.add_row(state.what, state.stage, axes, state.why)
    if others:
        console.print(table, markup=False)
    if len(others) > table.row_count:
        print(f"... and {len(others) - table.row_count} more: {folder.path / 'status.json'}")


def _dry_run(folder: SweepFolder, plan: Plan, grid: Grid) -> int:
    if grid.config.launcher != "slurm":
        for row in plan.rows[:SHOWN]:
            for task in row.tasks:
                print(shlex.join(["align", task.verb, *task.arguments]))
        if len(plan.rows) > SHOWN:
            print(f"... and {len(plan.rows) - SHOWN} more rows")
        return 0
    from align.sweep.slurm.planning import lacks_of, planned, queue_of
    from align.sweep.slurm.submission import command, texts

    try:
        queue, jobs = queue_of(folder)
    except UserError as error:
        print(f"{error}\nThe queue is unknown: the plan below assumes that no job is queued.")
        queue, jobs = {}, []
    for submission in planned(folder, plan, grid.config, queue, jobs, lacks_of(plan)):
        for name, text in texts(submission, grid.config).items():
            lines = text.splitlines(keepends=True)
            shown = lines if name.endswith(".sh") else lines[:SHOWN]
            more = f"... and {len(lines) - len(shown)} more lines\n" if len(lines) > len(shown) else ""
            print(f"\n----- {submission.path / name}\n{''.join(shown)}{more}", end="")
        print("\n----- submitted with")
        for batch in submission.batches:
            print(shlex.join(command(submission, batch, grid.config, AS_STAGES)))
    return 0


def _submit(folder: SweepFolder, plan: Plan, config: SweepConfig) -> int:
    from align.sweep.slurm.planning import lacks_of, orphans, planned, queue_of
    from align.sweep.slurm.queue import ask
    from align.sweep.slurm.submission import submit

    queue, jobs = queue_of(folder)
    lacks = lacks_of(plan)
    for key, job in orphans(queue, lacks).items():
        ask("scancel", job.id)
        queue = {other: it for other, it in queue.items() if other != key}
    submissions = planned(folder, plan, config, queue, jobs, lacks)
    known: dict[str, str] = {}
    for submission in submissions:
        for batch, job_id in submit(submission, config, known):
            of = f", rows: {len(batch.indices)}" if batch.indices else ""
            print(f"Submitted: job {job_id}, {batch.stage}{of}", flush=True)
    if not submissions and not jobs:  # all is done, but the last job may not have written the tables
        from align.sweep.finish import finish

        finish(folder, queue)
        return 0
    states = states_of(plan.current, queue_of(folder)[0])
    print(("" if submissions else "Nothing to submit. ") + f"Now: {counted(states)}")
    print(f"To see the status: align sweep output_dir={config.output_dir} status=true")
    return 0


def _run(folder: SweepFolder, plan: Plan, config: SweepConfig) -> int:
    from align.console import progress
    from align.sweep.choosing import choose
    from align.sweep.finish import finish
    from align.sweep.local import Local

    if busy := _queue(folder):
        jobs = ", ".join(sorted(job.id for job in busy.values())[:5])
        raise UserError(
            f"{folder.output_dir}: this sweep has {len(busy)} queued or running SLURM jobs ({jobs}). Continue it with "
            "launcher=slurm."
        )
    with progress() as display:
        local = Local(config, display)
        stopped = local.run([row for row in plan.current if not row.chosen])
        if config.tune and stopped is None:
            choose(folder, plan, {})
            stopped = local.run([row for row in plan.current if row.chosen and row.path.exists()])
    if stopped is not None:
        print("Stopped. Runs saved a checkpoint where they could. To resume, give the same command.")
        return 130 if stopped == signal.SIGINT else EXIT_AGAIN
    states = finish(folder, {})
    return 1 if any(state.what == FAILED for state in states) else 0
