"""Compare the time and the results of `align compare` in this checkout and in another one.

    git worktree add --detach ../before <commit>
    python perf/compare.py before=../before [rounds=2]

Both run at the same time, each on its own processor with one thread and with its own cache. They
swap processors every round. In an older checkout, the package may not contain the miniature's base
model and reads it from the cache. Then this checkout's base is copied to that cache, under the name
of every base in the user's cache. The interval is that of the arms' training: the mean of the
ratios, as logarithms (Student's t, 95%).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from align.files import cache_folder, write_json
from align.miniature.bases import mini_llava
from align.run_folder import git_commit, versions
from perf.generation import machine

HERE = Path(__file__).parent


def main(arguments: Sequence[str]) -> None:
    """Compare in turns, print and write the results."""
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
    arms = np.log(
        [
            before["training"][arm] / now["training"][arm]
            for before, now in zip(found["before"], found["now"], strict=True)
            for arm in before["training"]
        ]
    )
    margin = t.ppf(0.975, len(arms) - 1) * arms.std(ddof=1) / np.sqrt(len(arms))
    ratio, low, high = (round(float(np.exp(arms.mean() + side)), 2) for side in (0, -margin, margin))
    whole = [round(a["seconds"] / b["seconds"], 2) for a, b in zip(found["before"], found["now"], strict=True)]
    rates = [one["rates"] for of in found.values() for one in of]
    differ = sorted({key for one in rates for key in one if any(other.get(key) != one[key] for other in rates)})
    result = {
        "schema": 1,
        "name": "compare",
        "what": "seconds before over seconds now: of `align compare` in each round, and of the training of each arm",
        "whole": whole,
        "training": {"ratio": ratio, "low": low, "high": high, "n": len(arms)},
        "rates": len(rates[0]),
        "rates that differ": {key: [one.get(key) for one in rates] for key in differ},
        "measured": found,
        "commits": {"now": git_commit(), "before": commit_of(sides["before"])},
        "machine": machine(),
        "versions": versions(),
        "command": ["perf/compare.py", "before=<checkout>", f"rounds={given['rounds']}"],
    }
    write_json(HERE / "results" / "compare.json", result)
    print(f"the whole {whole} times as fast, training {ratio} (95%: {low} to {high}, n = {len(arms)})")
    print(f"of {len(rates[0])} rates {len(differ)} differ: {', '.join(differ) or 'none'}")


def compared(checkout: Path, output: Path, processor: int) -> dict[str, Any]:
    """Seconds of a comparison and of its arms, and the rates in its table."""
    cache = output.with_suffix(".cache")
    for base in cache_folder("miniature").glob("llava-*"):
        shutil.copytree(mini_llava(), cache / "vsil-align" / "miniature" / base.name)
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)}
    begun = time.perf_counter()
    command = ["taskset", "-c", str(processor), sys.executable, "-m", "align.cli", "compare", f"output_dir={output}"]
    subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    rows = json.loads((output / "comparison.json").read_text())["rows"]
    return {
        "seconds": round(seconds, 1),
        "training": {name_of(row): row["seconds"] for row in rows if row["seconds"]},
        "rates": {
            f"{name_of(row)} {benchmark}": it["rate"] for row in rows for benchmark, it in row["results"].items()
        },
    }


def name_of(row: dict[str, Any]) -> str:
    """The name of a trained arm, with its track, method and seed."""
    return " ".join(map(str, (row["track"], row["name"], row["method"], row["seed"])))


def commit_of(checkout: Path) -> str:
    """The commit that is checked out there."""
    asked = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main(sys.argv[1:])
