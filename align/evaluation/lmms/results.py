"""Read lmms_eval's results file -> metrics in its own units, for run folder and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.files import read_json, read_jsonl

MAIN = {
    "mme": "mme_perception_score",
    "mmmu_val": "mmmu_acc",
    "mmstar": "average",
    "mmvet": "gpt_eval_score",
    "pope": "pope_accuracy",
}
"""{task: main metric}; for other tasks the first metric."""
ERRORS = ("_stderr", "_stderr_clt", "_stderr_clustered")
"""Suffixes of standard errors.

Only the first belongs to the metric; the others belong to the mean of item scores, which differs
from sums such as MME's.
"""
VERSION_UNKNOWN = "unknown"


def find(output: Path) -> Path | None:
    """The results file in lmms_eval's output; None if there is none."""
    return max(output.rglob("*results*.json"), default=None)


def read(file: Path, task: str) -> dict[str, Any]:
    """{metrics, facts, version} of a results file, the main metric first.

    Raises UserError with file and key.
    """
    content = read_json(file)
    found = content.get("results") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found:
        raise UserError(f"{file}: results: expected {{task: {{'metric,filter': value}}}}; found {_shown(found)}")
    facts: list[str] = []
    metrics: list[dict[str, Any]] = []
    for name, values in found.items():
        if not isinstance(values, dict):
            raise UserError(f"{file}: results.{name}: expected {{'metric,filter': value}}; found {_shown(values)}")
        metrics += _metrics(name, values, facts)
    if not metrics:
        keys = ", ".join(f"results.{name}: {', '.join(values)}" for name, values in found.items())
        raise UserError(f"{file}: no number under a key 'metric,filter' of results; found {keys}")
    for metric in metrics:
        metric["n"] = _n(file, content, metric["set"])
        metric["higher_is_better"] = (
            (content.get("higher_is_better") or {}).get(metric["set"], {}).get(metric["metric"])
        )
    metrics.sort(key=lambda metric: (metric["set"] != task, metric["metric"] != MAIN.get(task)))
    version = str(content.get("lmms_eval_version") or VERSION_UNKNOWN)
    return {"metrics": metrics, "facts": facts, "version": None if version.startswith(VERSION_UNKNOWN) else version}


def empty_answers(output: Path) -> tuple[int, int]:
    """-> (empty responses, all responses) in the samples of lmms_eval."""
    answers = [
        record.get("filtered_resps") for file in output.rglob("*_samples_*.jsonl") for record in read_jsonl(file)
    ]
    written = ("".join(map(str, answer)) if isinstance(answer, list) else str(answer or "") for answer in answers)
    return sum(not answer.strip() for answer in written), len(answers)


def _metrics(name: str, values: dict[str, Any], facts: list[str]) -> Iterator[dict[str, Any]]:
    for key, value in values.items():
        metric, comma, kept = key.rpartition(",")
        if not comma or metric.endswith(ERRORS):
            continue
        if not _number(value):
            facts.append(f"{name}: {metric} is not a number: {_shown(value)}")
            continue
        error = values.get(f"{metric}_stderr,{kept}")
        yield {
            "set": name,
            "metric": metric,
            "filter": kept,
            "value": value,
            "stderr": error if _number(error) else None,
        }


def _n(file: Path, content: dict[str, Any], name: str) -> int | None:
    """Number of rows of a task; None for a group, or if an earlier version does not report it."""
    counted = content.get("n-samples", {})
    of_set = counted.get(name, {}) if isinstance(counted, dict) else counted
    n = of_set.get("effective") if isinstance(of_set, dict) else of_set
    if n is not None and (not _number(n) or n < 1):
        raise UserError(f"{file}: n-samples.{name}.effective: expected a number of rows; found {_shown(n)}")
    return None if n is None else int(n)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
