"""Split the rates of a benchmark by leak flags: items whose text shows the harm, and the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.errors import UserError
from align.evaluation.benchmark import SAFETY_KINDS
from align.evaluation.summary import MAX_INVALID
from align.files import read_jsonl
from align.report.items import Items, rate_of
from align.report.leak_flags import Flags
from align.report.run_results import Evaluated
from align.rows import split_view


def split(run: Evaluated, flags: dict[str, Flags]) -> list[str]:
    """Add `leak_split` to each result of a run whose benchmark has flags -> notes.

    The split uses the main judge; the notes say what could not be checked. Raises UserError if an
    item has no flag, or differs from the item that was measured under its id.
    """
    notes = []
    for name, result in run.row["results"].items():
        of_set = flags.get(split_view(name)[0])
        if of_set is None or result["kind"] not in SAFETY_KINDS:
            continue
        path = run.run.path
        records = list(read_jsonl(run.run.evaluation / name / f"items.{result['judge']}.jsonl"))
        if unknown := [one["id"] for one in records if one["id"] not in of_set.leaks]:
            raise UserError(
                f"{path}: {len(unknown)} of {len(records)} items of {name} are not in {of_set.file}, first "
                f"{unknown[0]}. Measure the leakage of the same rows."
            )
        _refuse_others(path, name, records, of_set)
        if any(None in (one.get("asks"), of_set.measured[one["id"]]["asks"]) for one in records):
            notes.append(
                f"{path}: it is not checked that the items of {name} equal those of {of_set.file}, because an earlier "
                "version, which stored only ids, wrote one of the two"
            )
        result["leak_split"] = _parts([(run.row["seed"], run.items(name))], of_set)
        run.flags[name] = of_set
    return notes


def pooled_split(runs: Sequence[Evaluated], name: str) -> dict[str, Any]:
    """`leak_split` of a benchmark over the seeds of an arm; every seed must have one."""
    return _parts([(run.row["seed"], run.items(name)) for run in runs], runs[0].flags[name])


def _parts(by_seed: Sequence[tuple[Any, Items]], of_set: Flags) -> dict[str, Any]:
    flagged = [(seed, items, [of_set.leaks[one] for one in items.ids]) for seed, items in by_seed]
    return {
        "judge": of_set.judge,
        "text": of_set.text,
        "leaks": _rate([(seed, items.where(np.array([x is True for x in of]))) for seed, items, of in flagged]),
        "leak_free": _rate([(seed, items.where(np.array([x is False for x in of]))) for seed, items, of in flagged]),
        "unlabelled": sum(x is None for _, _, of in flagged for x in of),
    }


def _refuse_others(path: Path, name: str, items: Sequence[dict[str, Any]], of_set: Flags) -> None:
    """Raises UserError if an item has another prompt or image than the one measured under its id.

    A value that is unknown on one side is not compared.
    """
    for key, what in (("asks", "have another prompt or role"), ("shows", "have another image")):
        pairs = [(item["id"], item.get(key), of_set.measured[item["id"]][key]) for item in items]
        if other := [item_id for item_id, ours, theirs in pairs if None not in (ours, theirs) and ours != theirs]:
            raise UserError(
                f"{path}: {len(other)} of {len(items)} items of {name} {what} than in {of_set.file} under the same "
                f"ids, first {other[0]}. The benchmark has changed, or it is another one of that name. Measure the "
                "leakage of the evaluated rows."
            )


def _rate(by_seed: Sequence[tuple[Any, Items]]) -> dict[str, Any]:
    """Share of good items among items with a verdict; withheld if more than 5% have none."""
    valid = [(seed, items.valid) for seed, items in by_seed]
    n, n_valid = (sum(len(items) for _, items in of) for of in (by_seed, valid))
    shown: dict[str, Any] = {"n": n, "invalid": n - n_valid, "rate": None, "low": None, "high": None}
    if n_valid and n - n_valid <= MAX_INVALID * n:
        shown |= rate_of(valid)
    return shown
