"""`align table`: make tables from run folders."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from align.config.compose import compose
from align.errors import UserError
from align.files import json_by_lines, sayable, write_text
from align.report.arms import one_by_one
from align.report.find_runs import read_runs
from align.report.findings import Findings, findings
from align.report.names import sorted_rows
from align.report.tables.all_tables import tables_of
from align.report.tables.delimited import comma_separated
from align.report.tables.latex import latex
from align.report.tables.markdown import markdown
from align.settings import TableConfig

FORMATS = ("md", "csv", "json", "latex")
SEEDS = ("together", "apart")


def main(arguments: Sequence[str]) -> int:
    """Print or write the table. Raises UserError."""
    config: TableConfig = compose(TableConfig, arguments).config
    for key, known in (("format", FORMATS), ("seeds", SEEDS)):
        if getattr(config, key) not in known:
            raise UserError(f"{key}={getattr(config, key)}: expected one of {', '.join(known)}")
    runs, notes = read_runs(config.runs, config.leaks)
    found = findings(runs)
    notes += found.notes
    text = _written(config, found, notes)
    text = sayable(text)
    if config.output:
        write_text(Path(config.output), text)
    else:
        sys.stdout.write(text)
    if config.format == "csv":
        for note in notes:
            print(note, file=sys.stderr)
    return 0


def _written(config: TableConfig, found: Findings, notes: Sequence[str]) -> str:
    arms = found.arms if config.seeds == "together" else one_by_one(found.arms)
    if config.format == "csv":
        return comma_separated([arm.row for arm in arms])
    tables = tables_of(arms, found.comparisons, config.tables, found.reward_models)
    if config.format == "latex":
        return latex(tables, notes)
    if config.format == "md":
        return markdown(tables, notes, found.conclusions)
    values = {
        "schema": 1,
        "rows": [run.row for run in found.runs],
        "arms": sorted_rows([arm.row for arm in arms]),
        "comparisons": found.comparisons,
        "reward_models": [run.row | {"held_out": run.manifest.get("held_out")} for run in found.reward_models],
        "tables": [asdict(table) for table in tables],
        "conclusions": found.conclusions,
        "notes": list(notes),
    }
    return json_by_lines(values)
