"""Run folders as a sweep would find them, written without training anything."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from align.evaluation.items import Item
from align.sweep.cells import cells_of
from align.sweep.folder import Plan
from align.sweep.grid import read_grid
from align.sweep.rows import rows_of


def plan_of(arguments):
    """Arguments of `align sweep` -> its plan, not written."""
    grid = read_grid(arguments)
    rows = rows_of(grid, cells_of(grid))
    return Plan(rows, len(rows), grid.config.tune, [])


def trained(path: Path, **facts) -> None:
    """A run folder that says it is finished."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "manifest.json").write_text(json.dumps({"status": "finished", **facts}))


def judged(
    evaluation: Path, name: str, rate: float | None, judge: str = "rule", main: bool = True, asked: str = ""
) -> None:
    """One set's summary under an `evaluation` folder; one item that asks `asked`."""
    folder = evaluation / name
    subset = "validation" if evaluation.parent.name == "validation" else None
    summary = {"rate": rate, "main": main, "judge": judge, "judge_version": "1", "n": 10, "facts": []}
    summary["narrowed"] = f"subset={subset}" if subset else None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps({"rows": "r", "generation": {}}))
    (folder / f"summary.{judge}.json").write_text(json.dumps(summary))
    item = Item("a", "refusal", True, "a", asks=asked or name, shows="x")
    (folder / f"items.{judge}.jsonl").write_text(json.dumps(asdict(item)) + "\n")


def job(path: Path, stage: str, *events) -> None:
    """Lines of a run folder's jobs.jsonl."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / "jobs.jsonl").open("a") as file:
        for event in events:
            file.write(json.dumps({"stage": stage, "job": "7_1", "restart": 0} | event) + "\n")
