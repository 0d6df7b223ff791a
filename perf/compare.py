"""`align compare` of this checkout against that of another, and whether both come to the same results:

    git worktree add --detach ../before <commit>
    python perf/compare.py before=../before [rounds=2]

Both run at the same time, each on a processor of its own with one thread, which they change from round to round. The miniature's base
stands in the user's cache (`align compare` once, in either).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from align.files import write_json
from align.run_folder import git_commit, versions
from perf.generation import machine

HERE = Path(__file__).parent


def main(arguments: Sequence[str]) -> None:
    """Compare in turns, print and write."""
    given = {"rounds": "2"} | dict(argument.split("=", 1) for argument in arguments)
    sides = {"now": HERE.parent, "before": Path(given["before"]).resolve()}
    found: dict[str, list[dict[str, Any]]] = {which: [] for which in sides}
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(len(sides)) as pool:
        for turn in range(int(given["rounds"])):
            running = {
                which: pool.submit(compared, sides[which], Path(name, f"{which}{turn}"), (turn + i) % len(sides))
                for i, which in enumerate(sides)
            }
            for which, one in running.items():
                found[which].append(one.result())
                print(f"{which}: {found[which][-1]['seconds']:.0f} s", flush=True)
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(found["before"], found["now"], strict=True)]
    result = {
        "schema": 1,
        "name": "compare",
        "what": "seconds of `align compare`, from nothing to its last line; and seconds before over seconds now",
        "seconds": {which: [round(one["seconds"], 1) for one in of] for which, of in found.items()},
        "ratio": [round(ratio, 2) for ratio in ratios],
        "rates": {which: of[0]["rates"] for which, of in found.items()},
        "commits": {"now": git_commit(), "before": commit_of(sides["before"])},
        "machine": machine(),
        "versions": versions(),
        "command": ["perf/compare.py", *arguments],
    }
    write_json(HERE / "results" / "compare.json", result)
    differ = [key for key, rate in found["now"][0]["rates"].items() if found["before"][0]["rates"].get(key) != rate]
    print(
        f"{np.exp(np.mean(np.log(ratios))):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f}); of "
        f"{len(found['now'][0]['rates'])} rates {len(differ)} differ: {', '.join(differ) or 'none'}"
    )


def compared(checkout: Path, output: Path, processor: int) -> dict[str, Any]:
    """Seconds of a comparison, and the rates that it found."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    begun = time.perf_counter()
    command = ["taskset", "-c", str(processor), sys.executable, "-m", "align.cli", "compare", f"output_dir={output}"]
    subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True)
    seconds = time.perf_counter() - begun
    rows = json.loads((output / "comparison.json").read_text())["rows"]
    return {"seconds": seconds, "rates": {" ".join(map(str, key)): rate for row in rows for key, rate in rates(row)}}


def rates(row: dict[str, Any]) -> list[tuple[tuple[Any, ...], float]]:
    """((what was evaluated on which set), its rate)."""
    return [
        ((row["track"], row["name"], row["method"], row["seed"], benchmark), it["rate"])
        for benchmark, it in row["results"].items()
    ]


def commit_of(checkout: Path) -> str:
    """What is checked out there."""
    asked = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main(sys.argv[1:])
