"""Choose the best settings of each cell by validation alone; reported results are never used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.files import read_jsonl, write_json
from align.report.run_results import judge_of, main_summary
from align.run_folder import RunFolder
from align.sweep.folder import Plan, SweepFolder
from align.sweep.rows import chosen_path
from align.sweep.state import Queue
from align.sweep.tasks import EVALUATE, VALIDATE, Row

SCHEMA = 1
SEED = "seed"


@dataclass(frozen=True)
class Candidate:
    """One value of each tuned setting, with its runs, one for each seed."""

    values: dict[str, str]
    runs: dict[str, Row]


@dataclass(frozen=True)
class Group:
    """Runs that differ only in seed and tuned settings: a cell for which settings are chosen."""

    cell: dict[str, str]
    candidates: list[Candidate]


def choose(folder: SweepFolder, plan: Plan, queue: Queue) -> list[dict[str, Any]]:
    """Choose for every cell by the mean rate over validation benchmarks and seeds.

    The first of equal candidates wins, in the grid's order. The choice is written to
    <output_dir>/sweep/chosen.json with every candidate's rates, and linked from
    <output_dir>/sweep/chosen/. A candidate that lacks the validation of a seed cannot be chosen,
    and is named. Nothing is chosen if candidates were validated on different rows or by different
    judges. A link that a running evaluation reads is not changed.
    """
    groups = _groups(plan)
    record = [_chosen(group) for group in groups]
    write_json(folder.path / "chosen.json", {"schema": SCHEMA, "tune": plan.tune, "cells": record})
    for group, found in zip(groups, record, strict=True):
        best = next((c for c in group.candidates if c.values == found["chosen"]), None)
        for row in best.runs.values() if best else ():
            path = chosen_path(folder.output_dir, row.axes, plan.tune)
            job = queue.get((path, EVALUATE))
            if not (job and job.running):
                _link(path, row.path)
    return record


def looked_at_twice(plan: Plan) -> list[str]:
    """Lines on benchmarks with rows that are both validated and reported, by prompt and image."""
    found = {}
    for row in plan.current:
        run = RunFolder(row.path)
        for folder in run.validation.evaluation.glob("*"):
            if (run.evaluation / folder.name).is_dir():
                both = _seen(run.validation, folder.name) & _seen(run, folder.name)
                if both:
                    found[folder.name] = (
                        f"{folder.name}: settings were chosen by validation on {len(both)} rows that are also reported"
                    )
    return list(found.values())


def _groups(plan: Plan) -> list[Group]:
    groups: dict[tuple[tuple[str, str], ...], dict[tuple[str, ...], Candidate]] = {}
    for row in plan.current:
        if any(task.stage == VALIDATE for task in row.tasks) and all(key in row.axes for key in plan.tune):
            cell = tuple((key, value) for key, value in row.axes.items() if key not in (*plan.tune, SEED))
            values = {key: row.axes[key] for key in plan.tune}
            candidate = groups.setdefault(cell, {}).setdefault(tuple(values.values()), Candidate(values, {}))
            candidate.runs[row.axes.get(SEED, "0")] = row
    return [Group(dict(cell), list(candidates.values())) for cell, candidates in groups.items()]


def _chosen(group: Group) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []
    how: dict[str, set[tuple[int, str]]] = {}
    for candidate in group.candidates:
        found = {seed: of for seed, row in candidate.runs.items() if (of := _validated(row)) is not None}
        for of_sets in found.values():
            for name, summary in of_sets.items():
                how.setdefault(name, set()).add((summary["n"], judge_of(summary)))
        rates = {seed: {name: summary["rate"] for name, summary in of_sets.items()} for seed, of_sets in found.items()}
        missing = [str(row.path) for seed, row in candidate.runs.items() if seed not in rates]
        means = [rate for of_sets in rates.values() for rate in of_sets.values()]
        score = sum(means) / len(means) if means and not missing else None
        seen.append({"values": candidate.values, "score": score, "rates": rates, "not_validated": missing})
    differently = [name for name, ways in how.items() if len(ways) > 1]
    scored = [one for one in seen if one["score"] is not None and not differently]
    best: dict[str, Any] = max(scored, key=itemgetter("score")) if scored else {"values": None}
    return {"cell": group.cell, "chosen": best["values"], "validated_differently": differently, "candidates": seen}


def _validated(row: Row) -> dict[str, dict[str, Any]] | None:
    """A run's summary of every validation benchmark.

    None if one is missing, withheld or damaged.
    """
    task = next(task for task in row.tasks if task.stage == VALIDATE)
    assert task.evaluation is not None
    found = {}
    for name in task.sets:
        try:
            main = main_summary(task.evaluation / name)
        except UserError:  # the row's state reports the damage
            return None
        if main is None or main["rate"] is None:
            return None
        found[name] = main
    return found


def _link(path: Path, run: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(os.path.relpath(run.resolve(), path.parent.resolve()))
    draft.replace(path)


def _seen(run: RunFolder, name: str) -> set[tuple[str | None, str | None]]:
    """Hashes of prompts and images of a benchmark's items."""
    folder = run.evaluation / name
    try:
        main = main_summary(folder)
        items = read_jsonl(folder / f"items.{main['judge']}.jsonl") if main else ()
        return {(item["asks"], item.get("shows")) for item in items if item.get("asks")}
    except (UserError, KeyError, TypeError):
        return set()
