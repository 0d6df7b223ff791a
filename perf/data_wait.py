"""Measure how long a step waits for its rows: `data_wait` in the log.

    python -m perf.data_wait [shapes=sft_images,dpo_images,sft_mixed] [steps=5]

The model has about 80 million parameters (perf/shapes.py). Each shape is trained with its fastest
settings (results/best_settings.json), in a separate process. Rows are rendered in the training
process, which is the default on a CPU. The first step warms up. On a busy machine set
OMP_NUM_THREADS=1: otherwise threads wait for each other, steps take longer, and the share of
rendering looks too small.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.files import write_json
from align.run_folder import git_commit, versions
from perf.against_trl import WARM_UP, best_settings, plan_of, side
from perf.generation import machine
from perf.shapes import SHAPES, write_model

DEFAULTS = {"shapes": "sft_images,dpo_images,sft_mixed", "steps": "5"}


def main(arguments: Sequence[str]) -> None:
    """Train each shape, print, and write results/data_wait.json."""
    given = DEFAULTS | dict(argument.split("=", 1) for argument in arguments)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as room:
        write_model(Path(room, "model"))
        for shape in given["shapes"].split(","):
            plan = plan_of(SHAPES[shape], Path(room), int(given["steps"]))
            plan |= {"side": "align", "settings": best_settings(shape)["align"]}
            it = side(plan, Path(room, "cache"))
            waits, seconds = it["data_wait"][WARM_UP:], it["seconds"][WARM_UP:]
            found[shape] = {"data_wait": round(statistics.median(waits), 4), "of each step": waits, "seconds": seconds}
            found[shape]["threads"] = it["threads"]
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


if __name__ == "__main__":
    main(sys.argv[1:])
