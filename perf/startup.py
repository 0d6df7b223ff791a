"""Measure the start-up time of commands, relative to the import of trl's SFTTrainer.

    python perf/startup.py [--rounds 5]

In each round, each of these runs once in a separate process, in turns: the import, `align --help`,
`dry_run=true`, and a miniature run of one step, from the start of the process to its last line. The
model is already in the cache.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from align.files import write_json
from align.run_folder import git_commit, versions
from perf.generation import machine

ONE_STEP = ["train.max_steps=1", "train.save_strategy=no", "evaluate_afterwards=false", "resume=false"]
BASE = "import of SFTTrainer"


def commands(folder: Path) -> dict[str, list[str]]:
    """The commands that are timed."""
    align = [sys.executable, "-m", "align.cli"]
    run = ["train", "recipe=mm_sft", f"output_dir={folder / 'run'}"]
    return {
        BASE: [sys.executable, "-c", "from trl import SFTTrainer"],
        "align --help": [*align, "--help"],
        "dry_run=true": [*align, *run, "dry_run=true"],
        "first step": [*align, *run, *ONE_STEP],
    }


def seconds(command: list[str]) -> float:
    """Seconds of one process."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        timed = commands(Path(folder))
        for command in timed.values():
            seconds(command)  # loads files into memory, and the model into the cache
        took: dict[str, list[float]] = {name: [] for name in timed}
        for turn in range(rounds):
            for name in list(timed) if turn % 2 else list(timed)[::-1]:
                took[name].append(round(seconds(timed[name]), 2))
    result = {
        "schema": 1,
        "name": "startup",
        "what": "seconds of a process, and over the import of trl's SFTTrainer in the same round",
        "seconds": took,
        "ratio": {
            name: [round(mine / base, 2) for mine, base in zip(times, took[BASE], strict=True)]
            for name, times in took.items()
        },
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
        "command": shlex.join(["python", "perf/startup.py", *sys.argv[1:]]),
    }
    write_json(Path(__file__).parent / "results" / "startup.json", result)
    for name, times in took.items():
        ratios = result["ratio"][name]
        print(
            f"{name}: {statistics.median(times):.2f} s, {statistics.median(ratios):.2f} times the import "
            f"[{min(ratios)}, {max(ratios)}]"
        )


if __name__ == "__main__":
    main()
