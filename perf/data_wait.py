"""How long a step waits for its rows: `data_wait` of the log, of the model of some 80 million parameters that perf/shapes.py makes.

    python -m perf.data_wait [shapes=sft_images,dpo_images,sft_mixed] [steps=6]

Rows are rendered in the training process, as on a CPU by default: by the plain path and by the fast one, a run each. The first step
warms up.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.data.fast import renderer_of
from align.data.rendering import Renderer
from align.files import write_json
from align.models import loading
from align.run_folder import git_commit, versions
from align.train import train
from perf.against_trl import WARM_UP, plan_of
from perf.generation import machine
from perf.one_side import composed
from perf.shapes import SHAPES, write_model

DEFAULTS = {"shapes": "sft_images,dpo_images,sft_mixed", "steps": "6"}


def main(arguments: Sequence[str]) -> None:
    """Train each shape either way, print, and write results/data_wait.json."""
    given = DEFAULTS | dict(argument.split("=", 1) for argument in arguments)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as room:
        write_model(Path(room, "model"))
        for shape in given["shapes"].split(","):
            found[shape] = {
                name: measure(shape, Path(room), int(given["steps"]), make)
                for name, make in (("plain", Renderer), ("fast", renderer_of))
            }
            print(shape, found[shape], flush=True)
    result = {
        "schema": 1,
        "name": "data_wait",
        "measured": found,
        "machine": machine(),
        "versions": versions(),
        "commit": git_commit(),
        "command": f"python -m perf.data_wait {' '.join(arguments)}".strip(),
    }
    write_json(Path(__file__).parent / "results" / "data_wait.json", result)


def measure(shape: str, folder: Path, steps: int, make: Any) -> dict[str, Any]:
    """The share of its time that each step waited, once warm, and their median."""
    plan = plan_of(SHAPES[shape], folder, steps) | {"settings": []}
    loading.renderer_of = make  # type: ignore[attr-defined]
    try:
        with tempfile.TemporaryDirectory() as run:
            path = train(composed(plan, Path(run))).path
            logged = [json.loads(line) for line in (path / "log.jsonl").open()]
    finally:
        loading.renderer_of = renderer_of  # type: ignore[attr-defined]
    waits = [entry["data_wait"] for entry in logged if "data_wait" in entry][WARM_UP:]
    return {"data_wait": round(statistics.median(waits), 4), "steps": [round(wait, 4) for wait in waits]}


if __name__ == "__main__":
    main(sys.argv[1:])
