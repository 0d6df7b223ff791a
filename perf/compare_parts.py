"""Where the time of `align compare` went: training, responses, everything else.

    align compare output_dir=runs/compare
    python -m perf.compare_parts runs=runs/compare [beside=runs/other]

Reads what a finished comparison recorded: seconds of training of each run, and of each response. The rest is the start
of processes, loading, checks, verdicts, tables and waiting for a processor. With `beside=`, it also counts the rates
that differ between two comparisons of the same arms, for example with another number of threads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.files import read_jsonl, write_json
from align.run_folder import git_commit
from perf.generation import machine

RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str]) -> None:
    """Print and write the parts of one comparison."""
    given = dict(argument.split("=", 1) for argument in arguments)
    runs = Path(given["runs"])
    comparison = json.loads((runs / "comparison.json").read_text(encoding="utf-8"))
    rows = {(row["track"], row["name"], row["method"]): row["seconds"] for row in comparison["rows"]}
    responses = sum(row["seconds"] for file in runs.rglob("responses.jsonl") for row in read_jsonl(file))
    found: dict[str, Any] = {
        "commit": git_commit(),
        "machine": machine(),
        "seconds": comparison["seconds"],
        "trained_arms": sum(seconds > 0 for seconds in rows.values()),
        "training": round(sum(rows.values()), 1),
        "responses": round(responses, 1),
    }
    if "beside" in given:
        other = rates(json.loads(Path(given["beside"], "comparison.json").read_text(encoding="utf-8")))
        own = rates(comparison)
        found["rates"] = len(own)
        found["rates_that_differ"] = sum(own[key] != other.get(key) for key in own)
    write_json(RESULTS / "compare_parts.json", found)
    print(json.dumps(found, indent=2))


def rates(comparison: dict[str, Any]) -> dict[tuple[str, ...], float]:
    """{(track, arm, method, benchmark): rate}."""
    return {
        (arm["track"], arm["name"], str(arm["method"]), name): result["rate"]
        for arm in comparison["arms"]
        for name, result in arm["results"].items()
    }


if __name__ == "__main__":
    main(sys.argv[1:])
