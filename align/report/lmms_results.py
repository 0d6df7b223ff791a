"""Results of lmms_eval on ability benchmarks, in its own units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.files import read_json
from align.report.file_schema import MEASURED, METRIC, checked
from align.run_folder import RunFolder

KEYS = ("kind", "program", "version", "metrics", "facts")
TITLE = "Ability by lmms_eval, another program: its values, in the units of each task"
NOTE = (
    "lmms_eval's values are not judged here and have no interval from here; `+-` is lmms_eval's standard error, if it "
    "reports one. `n` counts the rows that it measured. This connection was tested with the real program on a small "
    "local task, not on the published benchmarks."
)


def external_of(run: RunFolder) -> dict[str, Any]:
    """{task: its results}. Raises UserError if a file is damaged."""
    found = {}
    for file in sorted(run.evaluation.glob("lmms_eval/*/summary.json")):
        told = checked(file, read_json(file), MEASURED)
        metrics = [checked(file, metric, METRIC) for metric in told["metrics"]]
        found[file.parent.name] = {key: told.get(key) for key in KEYS} | {"metrics": metrics}
    return found


def over_seeds(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tasks that all seeds have: each metric's mean and values by seed, no standard error."""
    first, *others = (row["external"] for row in rows)
    return {task: _mean([of[task] for of in (first, *others)]) for task in first if all(task in of for of in others)}


def _mean(of_seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    by_metric = [{_key(metric): metric["value"] for metric in of["metrics"]} for of in of_seeds]
    metrics = []
    for metric in of_seeds[0]["metrics"]:
        values = [of[_key(metric)] for of in by_metric if _key(metric) in of]
        if len(values) == len(of_seeds):
            metrics.append(metric | {"value": sum(values) / len(values), "stderr": None, "by_seed": values})
    versions = dict.fromkeys(str(of["version"]) for of in of_seeds)
    facts = dict.fromkeys(fact for of in of_seeds for fact in of["facts"])
    return of_seeds[0] | {"metrics": metrics, "version": ", ".join(versions), "facts": list(facts)}


def _key(metric: dict[str, Any]) -> tuple[str, str, str]:
    return metric["set"], metric["metric"], metric["filter"]


def metrics_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Every metric of a row, with the program and version that measured it."""
    found = row.get("external", {}).values()
    return [metric | {"program": of["program"], "version": of["version"]} for of in found for metric in of["metrics"]]


def cells(metric: dict[str, Any]) -> list[str]:
    """Table cells of a metric: task, metric, value with its error, n."""
    name = metric["metric"] + ("" if metric["filter"] == "none" else f" ({metric['filter']})")
    lower = " (lower is better)" if metric["higher_is_better"] is False else ""
    value = _short(metric["value"])
    if metric["stderr"] is not None:
        value += f" +- {_short(metric['stderr'])}"
    if by_seed := metric.get("by_seed"):
        value += f" (mean of {', '.join(map(_short, by_seed))})"
    return [metric["set"], name + lower, value, "-" if metric["n"] is None else str(metric["n"])]


def remarks(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Notes below the values: versions, facts of the tasks, and what the values are."""
    found = [of for row in rows for of in row.get("external", {}).values()]
    versions = sorted({f"{of['program']} {of['version'] or '(version unknown)'}" for of in found})
    facts = sorted({f"{of['program']}: {fact}" for of in found for fact in of["facts"]})
    return [f"Measured by {', '.join(versions)}", *facts, NOTE] if found else []


def _short(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.4f}"
