"""Run folders -> rows of a table (the `rows` of comparison.json; see docs/formats.md)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.evaluation.items import Item
from align.files import read_json, read_jsonl
from align.report.contrasts import RATES, Observations, contrast
from align.report.external import external_of, over_seeds
from align.report.leak_split import Flags, split
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
LATER_KEYS = ("as_judged", "prompt_hash", "judge_settings")
"""What the summaries of earlier versions lack."""


def collect(folder: Path, flags: dict[str, Flags] | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Every run below a folder -> (rows, notes on what could not be used). Raises UserError where there is none.

    `flags` say of sets which items leak, and split their rates.
    """
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
        notes += split(run, rows[-1], flags or {})
        if rows[-1]["stopped"]:
            notes.append(f"{run.path}: {rows[-1]['stopped']}")
        if not rows[-1]["results"] and not rows[-1]["external"]:
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
    row["variant"] = manifest.get("variant") or {}
    row["stopped"] = manifest.get("stopped")
    row["results"] = {}
    for folder in sorted(path for path in run.evaluation.glob("*") if path.is_dir()):
        summaries = [read_json(path) for path in sorted(folder.glob("summary.*.json"))]
        main = [summary for summary in summaries if summary["main"]]
        if main:
            others = [_result(summary) for summary in summaries if not summary["main"]]
            row["results"][folder.name] = _result(main[0]) | ({"other_judges": others} if others else {})
    row["external"] = external_of(run)
    return row


def main_summary(folder: Path) -> dict[str, Any] | None:
    """What the main judge made of a set's answers; None where nobody judged them. Raises UserError where a file is damaged."""
    for file in sorted(folder.glob("summary.*.json")):
        summary = read_json(file)
        if not isinstance(summary, dict) or "main" not in summary or "rate" not in summary:
            raise UserError(f"{file}: not a summary; evaluate {folder.name} again")
        if summary["main"]:
            return summary
    return None


def _result(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: summary[key] for key in RESULT_KEYS} | {key: summary.get(key) for key in LATER_KEYS}


def judge_of(result: dict[str, Any]) -> str:
    """Who judged, and a mark that changes with the prompts and settings that it was asked with: other marks, other numbers."""
    asked = [result.get("prompt_hash"), result.get("judge_settings") or {}]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:6]
    return f"{result['judge']} {result['judge_version']}" + (f" [{digest}]" if any(asked) else "")


def valid_items(run: RunFolder, set_name: str, judge: str | None = None) -> list[Item]:
    """The items of a set with the label of a judge, by default the main one; those without a verdict are left out. Raises UserError."""
    folder = run.evaluation / set_name
    if judge is None:
        main = main_summary(folder)
        if main is None:
            raise UserError(f"{folder}: nobody judged the answers; evaluate it again")
        judge = main["judge"]
    items = (Item(**record) for record in read_jsonl(folder / f"items.{judge}.jsonl"))
    return [item for item in items if item.label != "invalid"]


def combine(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """One row an arm, its seeds together: `seed` lists them, counts and n are sums, rates and intervals are over items and seeds.

    `steps` and `most_steps` are the fewest and the most that a seed took; `stopped` says which seeds stopped at a bound, and why.

    A set that is withheld under one seed, or that not every seed was evaluated on, is withheld or absent. Raises UserError.
    """
    arms: dict[tuple[Any, ...], dict[int, tuple[RunFolder, dict[str, Any]]]] = {}
    for run in runs:
        row = row_of(run)
        variant = tuple(row["variant"].items())
        arm = arms.setdefault((variant, *(row[key] for key in ("track", "model", "method", "name"))), {})
        if row["seed"] in arm:
            raise UserError(
                f"{arm[row['seed']][0].path} and {run.path} are both {row['name']} of {row['model']} with seed {row['seed']}; "
                f"they are no two seeds of one arm. Give recipes and models names of their own"
            )
        arm[row["seed"]] = run, row
    return [_combined(list(arm.values())) for arm in arms.values()]


def _combined(arm: list[tuple[RunFolder, dict[str, Any]]]) -> dict[str, Any]:
    rows = [row for _, row in arm]
    stops = [f"seed {row['seed']} {row['stopped']}" for row in rows if row["stopped"]]
    of_seeds = {
        "seed": ",".join(str(row["seed"]) for row in rows),
        "steps": min(row["steps"] for row in rows),
        "most_steps": max(row["steps"] for row in rows),
        "stopped": "; ".join(stops) or None,
    }
    if len(arm) == 1:
        return rows[0] | of_seeds
    names = dict.fromkeys(name for row in rows for name in row["results"])
    return rows[0] | {
        **of_seeds,
        "seconds": sum(row["seconds"] for row in rows),
        "peak_memory_mib": max(row["peak_memory_mib"] for row in rows),
        "results": {name: _over_seeds(arm, name) for name in names if all(name in row["results"] for row in rows)},
        "external": over_seeds(rows),
    }


def _over_seeds(arm: list[tuple[RunFolder, dict[str, Any]]], name: str) -> dict[str, Any]:
    main = [row["results"][name] for _, row in arm]
    result = _pooled(arm, name, main)
    others = [
        _pooled(arm, name, list(same))
        for same in zip(*(each.get("other_judges", []) for each in main), strict=False)
        if len({other["judge"] for other in same}) == 1
    ]
    return result | ({"other_judges": others} if others else {})


def _pooled(arm: list[tuple[RunFolder, dict[str, Any]]], name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    judges = {judge_of(result) for result in results}
    if len(judges) > 1:
        raise UserError(
            f"{name} of {arm[0][1]['name']} was judged by {' and by '.join(sorted(judges))}; evaluate it again"
        )
    for key in ("rows", "generation"):
        settings = [read_json(run.evaluation / name / "settings.json") for run, _ in arm]
        if any(one[key] != settings[0][key] for one in settings):
            seeds = ", ".join(str(row["seed"]) for _, row in arm)
            raise UserError(
                f"{name} of {arm[0][1]['name']}: its seeds ({seeds}) were asked differently ({key}); evaluate it again"
            )
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for result in results:
        counts.update(result["counts"])
        reasons.update(result["invalid_reasons"])
    n = sum(result["n"] for result in results)
    combined = {key: results[0][key] for key in ("kind", "judge", "judge_version", "prompt_hash", "judge_settings")} | {
        "n": n,
        "counts": dict(counts),
        "rate": None,
        "low": None,
        "high": None,
        "bounds": {end: sum(result["bounds"][end] * result["n"] for result in results) / n for end in ("low", "high")},
        "as_judged": None,
        "invalid_reasons": dict(reasons),
        "cut_at_max_new_tokens": sum(result["cut_at_max_new_tokens"] for result in results),
        "facts": list(dict.fromkeys(fact for result in results for fact in result["facts"])),
    }
    if all(result["rate"] is not None for result in results):
        seen = [(item, row["seed"]) for run, row in arm for item in valid_items(run, name, results[0]["judge"])]
        values = [float(item.good) for item, _ in seen]
        found = contrast([Observations(values, [item.cluster for item, _ in seen], [seed for _, seed in seen])], RATES)
        combined |= {"rate": found["estimate"], "low": found["low"], "high": found["high"]}
        if all(result["as_judged"] for result in results):
            combined["as_judged"] = {key: sum(result["as_judged"][key] for result in results) for key in ("good", "n")}
    return combined
