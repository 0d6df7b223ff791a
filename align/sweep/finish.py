"""Results of a sweep: chosen settings, tables of finished runs, missing rows with reasons."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from align.errors import UserError
from align.files import write_json, write_text
from align.report.findings import findings
from align.report.reward_models import is_reward_model, reward_models_of
from align.report.run_results import Evaluated
from align.report.tables.all_tables import PARTS, tables_of
from align.report.tables.markdown import markdown
from align.report.tables.terminal import print_tables
from align.run_folder import RunFolder
from align.sweep.choosing import choose, looked_at_twice
from align.sweep.folder import SweepFolder
from align.sweep.grid import NAMED
from align.sweep.state import DONE, Queue, State, counted, states_of
from align.sweep.tasks import Row

SCHEMA = 1


def finish(folder: SweepFolder, queue: Queue) -> list[State]:
    """Choose tuned settings, write <output_dir>/table.md and sweep/status.json, print both.

    Raises UserError if there is no sweep, or nothing can be shown.
    """
    plan = folder.read()
    notes = []
    if plan.tune:
        notes += [_choice(record, plan.tune) for record in choose(folder, plan, queue)]
        notes += looked_at_twice(plan)
    states = states_of(plan.current, queue)
    write_status(folder, states)
    notes += [missing(state) for state in states if state.what != DONE]
    _settle_names(plan.current)
    runs, damaged = _runs([state.row for state in states], plan.tune)
    notes += damaged
    print(f"Sweep {folder.output_dir}: {counted(states)}")
    if earlier := len(plan.rows) - len(plan.current):
        notes.append(
            f"rows of earlier grids in this folder, not shown: {earlier}; align table runs={folder.output_dir} shows "
            "all runs"
        )
    if not runs:
        (folder.output_dir / "table.md").unlink(missing_ok=True)  # it is outdated
        print("\n".join([*notes, "No run is evaluated yet, so there is no table."]))
        return states
    found = findings([*runs, *reward_models_of([run.run for run in runs])], plan.tune)
    notes += found.notes
    write_text(
        folder.output_dir / "table.md",
        markdown(tables_of(found.arms, found.comparisons, PARTS, found.reward_models), notes, found.conclusions),
    )
    parts = ("rates", "divided", "thoughts", "defences", "measured", "reward_models")
    print_tables(tables_of(found.arms, [], parts, found.reward_models))
    print("\n".join([*found.conclusions, *notes]))
    print(f"Written: {folder.output_dir / 'table.md'}")
    return states


def write_status(folder: SweepFolder, states: Sequence[State]) -> None:
    """Write the state of every row as JSON."""
    rows = [
        {"row": state.row.name, "path": str(state.row.path), "axes": state.row.axes, "state": state.what}
        | ({"stage": state.stage, "why": state.why} if state.what != DONE else {})
        for state in states
    ]
    write_json(folder.path / "status.json", {"schema": SCHEMA, "summary": counted(states), "rows": rows})


def missing(state: State) -> str:
    """A line on an unfinished row: name, stage and reason."""
    axes = " ".join(f"{key}={value}" for key, value in state.row.axes.items())
    return f"{state.what} ({state.stage}): {state.row.name}, {axes}: {state.why}"


def _choice(record: dict[str, Any], tune: Sequence[str]) -> str:
    cell = " ".join(f"{key}={value}" for key, value in record["cell"].items())
    absent = [_values(one["values"]) for one in record["candidates"] if one["score"] is None]
    lacking = f"; not validated: {', '.join(absent)}" if absent else ""
    if record["validated_differently"]:
        sets = ", ".join(record["validated_differently"])
        how = f"{sets} was validated on different rows or by different judges. Remove <run>/validation and run the sweep again."
        return f"{cell}: no {', '.join(tune)} is chosen: {how}"
    if record["chosen"] is None:
        return f"{cell}: no {', '.join(tune)} can be chosen{lacking}"
    scores = ", ".join(
        f"{_values(one['values'])}: {100 * one['score']:.1f}"
        for one in record["candidates"]
        if one["score"] is not None
    )
    return f"{cell}: {_values(record['chosen'])} chosen by validation (mean rate % {scores}){lacking}"


def _values(values: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def _settle_names(rows: Sequence[Row]) -> None:
    """Give runs the names that distinguish them in this grid.

    They may come from an earlier grid.
    """
    for row in rows:
        if row.chosen or "recipe" not in row.axes:
            continue
        variant = {key: value for key, value in row.axes.items() if key not in NAMED}
        with contextlib.suppress(UserError, AttributeError):  # damaged folders are reported below
            if row.run.finished() and row.run.manifest().get("variant") != variant:
                row.run.record(variant=variant)


def _runs(rows: Sequence[Row], tune: Sequence[str]) -> tuple[list[Evaluated], list[str]]:
    """-> (trained and evaluated runs, notes on runs that cannot be shown)."""
    runs, notes = [], []
    for row in rows:
        tuned_out = tune and not row.chosen and "recipe" in row.axes  # only chosen runs are reported
        if tuned_out or not row.path.is_dir():
            continue
        run = RunFolder(row.path.resolve())
        try:
            if not run.finished():
                continue
            found = Evaluated(run)
        except (UserError, AttributeError) as error:
            notes.append(f"{row.name}: damaged: {error}")
            continue
        notes += found.drop_damaged()
        if found.row["results"] or found.row["external"] or is_reward_model(found):
            runs.append(found)
    return runs, notes
