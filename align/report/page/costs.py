"""Cost and provenance of runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from align.errors import UserError
from align.files import read_jsonl
from align.report.arms import Arm
from align.report.names import shortened, step_range
from align.report.run_results import Evaluated
from align.report.tables.rates import labels

Line = dict[str, Any]


def costs(arms: Sequence[Arm]) -> list[Line]:
    """For each arm: steps, training time, memory, generation time, judges' tokens."""
    label = labels([arm.row for arm in arms])
    once = {str(arm.runs[0].run.path): arm for arm in reversed(arms)}  # the base model is in two tracks
    return [_cost(arm, label(arm.row)) for arm in reversed(once.values())]


def _cost(arm: Arm, label: str) -> Line:
    results = [
        one for run in arm.runs for main in run.row["results"].values() for one in (main, *main.get("other_judges", []))
    ]
    tokens = [of for result in results if (of := result.get("judge_tokens"))]
    return {
        "model": arm.row["model"],
        "arm": label,
        "tuning": arm.row.get("tuning") or "-",
        "trainable": arm.row["trainable_parameters"],
        "steps": step_range(arm.row),
        "seconds": sum(run.row["seconds"] for run in arm.runs),
        "memory": arm.row["peak_memory_mib"],
        "answering": sum(_answering(run) for run in arm.runs),
        "judge_tokens": sum((of["prompt"] or 0) + (of["new"] or 0) for of in tokens),
    }


def _answering(run: Evaluated) -> float:
    """Seconds of generation, from the stored responses; 0 if they cannot be read."""
    total = 0.0
    for name in run.row["results"]:
        try:
            total += sum(record["seconds"] or 0 for record in read_jsonl(run.run.evaluation / name / "responses.jsonl"))
        except (UserError, KeyError, TypeError):
            continue
    return total


def provenance(runs: Iterable[Evaluated]) -> list[Line]:
    """Provenance of each run from its manifest; absolute paths are cut to their last part."""
    return [_made(run) for run in {run.run.path: run for run in runs}.values()]


def _made(run: Evaluated) -> Line:
    manifest = run.manifest
    data = manifest.get("data") or {}
    versions = {name: version for name, version in (manifest.get("versions") or {}).items() if version != "absent"}
    judges = {
        f"{one['judge']} {one['judge_version']}"
        for main in run.row["results"].values()
        for one in (main, *main.get("other_judges", []))
    }
    return {
        "path": shortened(str(run.run.path)),
        "finished": manifest.get("finished") or "-",
        "command": shlex.join(shortened(word) for word in manifest.get("command") or []) or "-",
        "commit": manifest.get("git_commit") or "installed package, or not recorded",
        "configuration": manifest.get("fingerprint") or "-",
        "data": data.get("fingerprint") or "-",
        "base": shortened(str(manifest.get("base") or "-")),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()) or "-",
        "processes": manifest.get("world_size") or "-",
        "judges": ", ".join(sorted(judges)) or "-",
    }
