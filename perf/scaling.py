"""Measure how a step grows with the length of its row, and the speedup from a second process.

    python -m perf.scaling [rounds=3]

A row has 512 to 8,192 tokens, 64 of them supervised. The computed FLOP/s show whether the time of a
step grows with its FLOPs. Then steps of eight rows of `sft_text` run in one process and in two,
each on one thread. Lengths, and numbers of processes, take turns -> results/scaling.json.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.files import read_jsonl, write_json
from align.run_folder import git_commit, versions
from perf.against_trl import HERE, KEPT, plan_of, side, step_of
from perf.generation import machine
from perf.shapes import SHAPES, Shape, write_model

LENGTHS = (512, 1024, 2048, 4096, 8192)
SUPERVISED = 64
AROUND = 8
"""Approximate number of tokens of the template."""
STEPS = 2
"""Number of steps; the first warms up."""
PROCESSES = (1, 2)
TOGETHER = 6
"""Optimizer steps of a run in several processes."""


def row_of(length: int, folder: Path) -> dict[str, float]:
    """Seconds of a step of one row, TFLOP/s, and peak memory."""
    prompt = length - SUPERVISED - AROUND
    plan = plan_of(Shape("sft", (prompt, prompt), (SUPERVISED, SUPERVISED), 0.0, 1), folder, STEPS)
    result = side(plan | {"side": "align", "settings": ["train.max_length=null"]}, folder / "cache")
    return {
        "seconds": step_of(result),
        "tflops": result["tflops"][-1],
        "peak_memory_mib": result["peak_memory_mib"],
    }


def rows_per_second(processes: int, folder: Path) -> float:
    """Rows per second of a run launched by `align train`, with its first step."""
    plan, run = plan_of(SHAPES["sft_text"], folder, TOGETHER), folder / f"run-{processes}"
    command = [
        *(
            sys.executable,
            "-m",
            "align.cli",
            "train",
            f"recipe={plan['recipe']}",
            f"model={plan['model']}",
            f"output_dir={run}",
        ),
        *(f"data.rows={{source: local, path: {plan['rows']}}}", f"global_batch_size={plan['batch']}"),
        *("model.dtype=float32", "evaluate.benchmark=[]", "resume=false", f"num_processes={processes}"),
        *(f"train.{key}={value}" for key, value in plan["train"].items() if key not in ("bf16", "report_to")),
        "train.per_device_train_batch_size=1",
    ]
    environment = os.environ | KEPT | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
    return float(list(read_jsonl(run / "log.jsonl"))[-1]["train_samples_per_second"])


def main(arguments: Sequence[str]) -> None:
    """Measure, print and write the results."""
    rounds = int(dict(argument.split("=", 1) for argument in arguments).get("rounds", "3"))
    lengths: dict[int, list[dict[str, float]]] = {length: [] for length in LENGTHS}
    rates: dict[int, list[float]] = {processes: [] for processes in PROCESSES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model")
        for turn in range(rounds):
            for length in list(LENGTHS) if turn % 2 else list(LENGTHS)[::-1]:
                lengths[length].append(row_of(length, folder))
                print(f"{length} tokens: {lengths[length][-1]}", flush=True)
            for processes in list(PROCESSES) if turn % 2 else list(PROCESSES)[::-1]:
                rates[processes].append(rows_per_second(processes, folder))
                print(f"{processes} processes: {rates[processes][-1]} rows/s", flush=True)
    result: dict[str, Any] = {
        "schema": 1,
        "name": "scaling",
        "what": "seconds of a step of one row by its tokens; rows per second of one process and of two, a thread each",
        "rounds": rounds,
        "lengths": {
            length: {key: round(statistics.median(one[key] for one in found), 4) for key in found[0]} | {"all": found}
            for length, found in lengths.items()
        },
        "processes": {processes: {"rows_per_second": found} for processes, found in rates.items()},
        "over_one_process": [round(two / one, 2) for one, two in zip(rates[1], rates[2], strict=True)],
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
        "command": ["perf/scaling.py", *arguments],
    }
    write_json(HERE / "results" / "scaling.json", result)


if __name__ == "__main__":
    main(sys.argv[1:])
