"""Measure the time of the plan of a sweep of 1,000 runs, without the import of the libraries.

    python perf/sweep.py            # -> perf/results/sweep_plan.json

Each round is a separate process. It imports the libraries, plans, and writes the plan: the runs,
which of them are done, and GPU hours. Two sweeps are planned: one with no run done, and one with
all runs done, whose run folders are read.
"""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 5
GRID = [
    "recipe=t_sft,mm_sft,t_dpo,mm_dpo",
    "model=mini_llava",
    "train.learning_rate=1e-5,2e-5,3e-5,4e-5,5e-5,6e-5,7e-5,8e-5,9e-5,1e-4",
    "seed=" + ",".join(map(str, range(25))),
]
OUTPUT = Path(__file__).parent / "results" / "sweep_plan.json"


def one_round(folder: str) -> dict[str, float]:
    """Seconds of the import, then of each part of planning, in this process."""
    seconds = {}
    begun = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal begun
        seconds[name] = time.perf_counter() - begun
        begun = time.perf_counter()

    for module in ("align.methods.sft", "align.methods.dpo", "align.planning.estimate", "align.models.loading", "peft"):
        importlib.import_module(module)
    from align.sweep.cells import cells_of
    from align.sweep.cost import cost_of
    from align.sweep.folder import SweepFolder
    from align.sweep.grid import read_grid
    from align.sweep.rows import rows_of
    from align.sweep.state import counted, states_of

    lap("import")
    grid = read_grid([*GRID, f"output_dir={folder}"])
    cells = cells_of(grid)
    rows = rows_of(grid, cells)
    lap("cells")
    counted(states_of(rows, {}))
    lap("states")
    SweepFolder(Path(folder)).write(rows, [], [])
    lap("plan_written")
    cost = cost_of(cells, 8)
    lap("hours")
    assert len(cells) == 1000
    assert not cost.unknown
    return seconds


def finish(folder: Path) -> None:
    """Make every run of the plan look done: write manifests and summaries as an evaluation does."""
    for row in json.loads((folder / "sweep" / "plan.json").read_text())["rows"]:
        for task in row["tasks"]:
            path = Path(task["path"])
            path.mkdir(parents=True, exist_ok=True)
            (path / "manifest.json").write_text(json.dumps({"status": "finished"}))
            for name in task["sets"]:
                results = Path(task["evaluation"], name)
                results.mkdir(parents=True)
                (results / "summary.rule.json").write_text(json.dumps({"rate": 1.0, "main": True, "judge": "rule"}))


def measured(folder: Path) -> dict[str, dict[str, float]]:
    """Median, minimum and maximum seconds of each part over the rounds."""
    rounds = [
        json.loads(
            subprocess.run(
                [sys.executable, __file__, str(folder)], check=True, capture_output=True, text=True
            ).stdout.splitlines()[-1]
        )
        for _ in range(ROUNDS)
    ]
    for one in rounds:
        one["plan"] = sum(seconds for name, seconds in one.items() if name != "import")
    return {
        name: {
            key: round(of(one[name] for one in rounds), 3)
            for key, of in (("median", statistics.median), ("low", min), ("high", max))
        }
        for name in rounds[0]
    }


def main() -> None:
    """Measure both, and write the results."""
    with tempfile.TemporaryDirectory() as name:
        empty = measured(Path(name))
        finish(Path(name))
        done = measured(Path(name))
    record = {
        "schema": 1,
        "name": "sweep_plan",
        "runs": 1000,
        "rounds": ROUNDS,
        "seconds": {"nothing_done": empty, "all_done": done},
        "command": "python perf/sweep.py",
    }
    OUTPUT.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["seconds"], indent=2))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one_round(sys.argv[1])))
    else:
        main()
