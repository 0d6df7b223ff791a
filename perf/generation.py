"""Measure responses per second of batched generation, relative to generation one by one.

    python -m perf.generation [key=value...]

Both use the same model in one process, in turns. The keys are those of `align eval` (model=,
benchmark=, limit=, generation.batch_size=, ...), and rounds= is how often each is timed.
`model=qwen2_vl` is the small random Qwen2-VL of perf/shapes.py behind the published processor
(ALIGN_SHARED must point to it). Batches are generated as in an evaluation: image features are kept
for other rows and views. One by one, nothing is kept. On a CPU, CPU seconds are measured, because
other work on the machine changes them less than wall-clock time; on a GPU, wall-clock time is
measured. The interval is that of the mean logarithm of the rounds' ratios (Student's t, 95%).
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t

from align.answering.generate import generate, load_on
from align.answering.local_model import devices
from align.config.compose import compose_eval
from align.console import quiet_libraries
from align.errors import UserError
from align.evaluation.selection import selections_of
from align.fast.seen_images import SeenImages
from align.files import write_json
from align.models.loading import ModelSource
from align.run_folder import git_commit, versions
from align.settings import Generation
from perf.shapes import write_model

SMALL_QWEN2_VL = "model=qwen2_vl"
DEFAULTS = (
    "model=mini_llava",
    "benchmark=mini_vsil,mini_vsil_free,mini_ability",
    "view=image,text",
    "limit=32",
    "generation.max_new_tokens=20",
)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write results/generation_<model>.json."""
    rounds = int(next((one.removeprefix("rounds=") for one in arguments if one.startswith("rounds=")), 7))
    if rounds < 2:
        raise UserError(f"rounds={rounds}: an interval needs 2 or more")
    given = [one for one in arguments if not one.startswith("rounds=")]
    with tempfile.TemporaryDirectory() as folder:
        if SMALL_QWEN2_VL in given:
            write_model(Path(folder), "qwen2_vl")
            given = [f"model={folder}" if one == SMALL_QWEN2_VL else one for one in given] + ["model.dtype=float32"]
        config = compose_eval([*DEFAULTS, *given]).config
        quiet_libraries()
        loaded = load_on(devices(1)[0], ModelSource(config.model))
    named = "qwen2_vl_small" if SMALL_QWEN2_VL in arguments else config.model.name
    now = time.perf_counter if torch.cuda.is_available() else time.process_time
    rows = [replace(row, id=f"{chosen.name}/{row.id}") for chosen in selections_of(config) for row in chosen.rows]

    def seconds(generation: Generation) -> tuple[float, dict[str, str]]:
        begun = now()
        seen = SeenImages(loaded.model, loaded.family) if generation.batch_size > 1 else None
        found = generate(loaded.model, loaded.renderer, rows, generation, seen)
        responses = {one.id: one.response for one in found}
        return now() - begun, responses

    ways = {"batched": config.generation, "one by one": replace(config.generation, batch_size=1)}
    answers = {way: seconds(generation)[1] for way, generation in ways.items()}  # this also warms up
    took: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way in list(ways) if turn % 2 else list(ways)[::-1]:
            took[way].append(seconds(ways[way])[0])
    ratio, low, high = ratio_of(took["one by one"], took["batched"])

    def side(way: str) -> dict[str, Any]:
        return {
            "batch_size": ways[way].batch_size,
            "answers_per_second": round(len(rows) / float(np.median(took[way])), 2),
            "seconds": [round(one, 3) for one in took[way]],
        }

    name = f"generation_{named}"
    identical = sum(answers["batched"][row.id] == answers["one by one"][row.id] for row in rows)
    result = {
        "schema": 1,
        "name": name,
        "what": "answers per second, batched over one by one",
        "ratio": ratio,
        "low": low,
        "high": high,
        "rounds": rounds,
        "rows": len(rows),
        "identical_answers": identical,
        "max_new_tokens": config.generation.max_new_tokens,
        "ours": side("batched"),
        "peer": side("one by one"),
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
        "command": ["-m perf.generation", *arguments],
    }
    file = Path(__file__).parent / "results" / f"{name}.json"
    write_json(file, result)
    print(
        f"{named}: {ratio} times as many answers per second in batches of {config.generation.batch_size} as one by one "
        f"(95%: {low} to {high}, {rounds} rounds of {len(rows)} rows); {identical} of {len(rows)} answers identical; "
        f"{file}"
    )


def ratio_of(peer: list[float], ours: list[float]) -> tuple[float, float, float]:
    """Geometric mean of peer over ours, round by round, with a 95% interval (Student's t on logarithms)."""
    ratios = np.log(np.divide(peer, ours))
    margin = t.ppf(0.975, len(ours) - 1) * ratios.std(ddof=1) / np.sqrt(len(ours))
    estimate, low, high = (round(float(np.exp(ratios.mean() + side)), 3) for side in (0, -margin, margin))
    return estimate, low, high


def machine() -> dict[str, Any]:
    """The machine of the measurement, and its load."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    return {
        "processor": next(
            (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()
        ),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": [round(one, 2) for one in os.getloadavg()],
    }


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
