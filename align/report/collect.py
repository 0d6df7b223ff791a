"""Run folders -> rows of a table (the `rows` of comparison.json; see docs/formats.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.evaluation.items import Item, items_of
from align.evaluation.verdicts import Verdict, label_of
from align.files import read_json, read_jsonl
from align.report.contrasts import RATES, Observations, contrast
from align.run_folder import RunFolder

RESULT_KEYS = (
    "kind",
    "n",
    "counts",
    "rate",
    "low",
    "high",
    "judge",
    "judge_version",
    "bounds",
    "invalid_reasons",
    "cut_at_max_new_tokens",
    "facts",
)


def collect(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Every run below a folder -> (rows, notes on what could not be used). Raises UserError where there is none."""
    rows, notes = [], []
    for manifest in sorted(folder.rglob("manifest.json")):
        run = RunFolder(manifest.parent)
        try:
            if not run.finished():
                notes.append(f"{run.path}: not finished")
                continue
            rows.append(row_of(run))
        except (UserError, KeyError, TypeError) as error:
            notes.append(f"{run.path}: damaged: {error}")
            continue
        if not rows[-1]["results"]:
            notes.append(f"{run.path}: not evaluated yet; align eval run={run.path}")
    if not rows:
        raise UserError(f"runs={folder}: no finished run in it" + (f" ({'; '.join(notes)})" if notes else ""))
    return rows, notes


def row_of(run: RunFolder) -> dict[str, Any]:
    """One run as a row. Raises UserError, KeyError or TypeError where its files are damaged."""
    manifest = run.manifest()
    copied = ("track", "model", "method", "view", "seed", "steps", "trainable_parameters", "seconds", "peak_memory_mib")
    row = {key: manifest[key] for key in copied}
    row["name"] = manifest["recipe"].rpartition("/")[2]
    row["results"] = {}
    for folder in sorted(path for path in run.evaluation.glob("*") if path.is_dir()):
        summaries = [read_json(path) for path in sorted(folder.glob("summary.*.json"))]
        main = [summary for summary in summaries if summary["main"]]
        if main:
            others = [_result(summary) for summary in summaries if not summary["main"]]
            row["results"][folder.name] = _result(main[0]) | ({"other_judges": others} if others else {})
    return row


def _result(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: summary[key] for key in RESULT_KEYS}


def valid_items(run: RunFolder, set_name: str) -> list[Item]:
    """The items of a set with the main judge's label; those without a verdict are left out. Raises UserError."""
    folder = run.evaluation / set_name
    summary = next(s for s in (read_json(path) for path in sorted(folder.glob("summary.*.json"))) if s["main"])
    verdicts = read_jsonl(folder / f"verdicts.{summary['judge']}.jsonl")
    labels = {v["id"]: label_of(Verdict(v["verdict"], v["reason"], v["incoherent"])) for v in verdicts}
    items = items_of(summary["kind"], read_jsonl(folder / "rows.jsonl"), labels)
    return [item for item in items if item.label != "invalid"]


def combine(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """One row an arm, its seeds together: `seed` lists them, counts and n are sums, rates and intervals are over items and seeds.

    A set that is withheld under one seed, or that not every seed was evaluated on, is withheld. Raises UserError.
    """
    arms: dict[tuple[Any, ...], list[tuple[RunFolder, dict[str, Any]]]] = {}
    for run in runs:
        row = row_of(run)
        arms.setdefault(tuple(row[key] for key in ("track", "model", "method", "name", "steps")), []).append((run, row))
    return [_combined(arm) for arm in arms.values()]


def _combined(arm: list[tuple[RunFolder, dict[str, Any]]]) -> dict[str, Any]:
    rows = [row for _, row in arm]
    if len(arm) == 1:
        return rows[0] | {"seed": str(rows[0]["seed"])}
    names = dict.fromkeys(name for row in rows for name in row["results"])
    results = {name: _over_seeds(arm, name) for name in names if all(name in row["results"] for row in rows)}
    return rows[0] | {"seed": ",".join(str(row["seed"]) for row in rows), "results": results}


def _over_seeds(arm: list[tuple[RunFolder, dict[str, Any]]], name: str) -> dict[str, Any]:
    results = [row["results"][name] for _, row in arm]
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for result in results:
        counts.update(result["counts"])
        reasons.update(result["invalid_reasons"])
    n = sum(result["n"] for result in results)
    combined = {key: results[0][key] for key in ("kind", "judge", "judge_version")} | {
        "n": n,
        "counts": dict(counts),
        "rate": None,
        "low": None,
        "high": None,
        "bounds": {end: sum(result["bounds"][end] * result["n"] for result in results) / n for end in ("low", "high")},
        "invalid_reasons": dict(reasons),
        "cut_at_max_new_tokens": sum(result["cut_at_max_new_tokens"] for result in results),
        "facts": list(dict.fromkeys(fact for result in results for fact in result["facts"])),
    }
    if all(result["rate"] is not None for result in results):
        seen = [(item, row["seed"]) for run, row in arm for item in valid_items(run, name)]
        found = contrast(
            [
                Observations(
                    [float(item.good) for item, _ in seen],
                    [item.cluster for item, _ in seen],
                    [seed for _, seed in seen],
                )
            ],
            RATES,
        )
        combined |= {"rate": found["estimate"], "low": found["low"], "high": found["high"]}
    return combined
