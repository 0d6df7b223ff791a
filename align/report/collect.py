"""Run folders -> rows of a table (the `rows` of comparison.json; see docs/formats.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.errors import UserError
from align.evaluation.verdicts import Verdict, is_good, label_of, role_of
from align.files import read_json, read_jsonl
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
    row["name"] = manifest["recipe"]
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


def good_items(run: RunFolder, set_name: str) -> dict[str, bool]:
    """{item id: whether the main judge found the answer good}, items without a verdict left out; not for twin sets."""
    folder = run.evaluation / set_name
    summary = next(s for s in (read_json(path) for path in sorted(folder.glob("summary.*.json"))) if s["main"])
    items = {}
    for record in read_jsonl(folder / f"verdicts.{summary['judge']}.jsonl"):
        label = label_of(Verdict(record["verdict"], record["reason"], record["incoherent"]))
        items[record["id"]] = (label, is_good(label, role_of(summary["kind"])))
    return {item: good for item, (label, good) in items.items() if label != "invalid"}
