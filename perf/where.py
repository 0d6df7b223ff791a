"""Measure the time of a step by kind of work, on every side with its fastest settings.

    python -m perf.where [shapes=sft_mixed,...] [peers=true [batch=8]]

The second step runs under torch's profiler, each side in a separate process. The result is seconds
by kind of work -> results/where_<shape>.json. With `peers=true` the sides are those of
perf/against_peers.py, with `batch` rows or pairs per step -> results/where_peers_<shape>.json.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from align.fast.frozen_head import WORDS
from align.files import write_json
from align.run_folder import git_commit, versions
from perf.against_peers import BATCH, fastest, plans, trained
from perf.against_trl import HERE, best_settings, folder_with_model, plan_of, side
from perf.generation import machine
from perf.profiled import STEPS
from perf.shapes import SHAPES


def sides_with_trl(name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """{side: its plan} for this project and trl."""
    plan, best = plan_of(SHAPES[name], folder, STEPS), best_settings(name)
    return {which: plan | {"side": which, "settings": best[which]} for which in ("trl", "align")}


def measure(name: str, with_peers: bool, batch: int, command: Sequence[str]) -> None:
    """Measure each side of a shape, print and write the results."""
    found, settings = {}, {}
    with tempfile.TemporaryDirectory() as room:
        folder = folder_with_model(Path(room), SHAPES[name])
        told = plans(name, folder, STEPS, fastest(name), batch) if with_peers else sides_with_trl(name, folder)
        vocabulary = AutoConfig.from_pretrained(folder / "model").get_text_config().vocab_size
        for which, plan in told.items():
            # The frozen head computes tiles of WORDS words.
            profiled = plan | {"profiled": [vocabulary, WORDS]}
            it = trained(profiled, folder / "cache") if with_peers else side(profiled, folder / "cache")
            found[which] = {kind: round(seconds, 3) for kind, seconds in it["work"].items()}
            settings[which] = it["settings"] if with_peers else plan["settings"]
            print(which, found[which], flush=True)
    file = f"where_peers_{name}" if with_peers else f"where_{name}"
    result = {
        "schema": 1,
        "name": file,
        "what": "seconds of the second step by kind of work, under torch's profiler",
        "seconds": found,
        "settings": settings,
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
        "command": list(command),
    }
    write_json(HERE / "results" / f"{file}.json", result)


def main(arguments: Sequence[str]) -> None:
    """Measure the shapes in the arguments."""
    own = {"shapes": "sft_mixed", "peers": "false", "batch": str(BATCH)}
    given = own | dict(argument.split("=", 1) for argument in arguments)
    if given["peers"] == "true":
        os.environ["OMP_NUM_THREADS"] = "1"
    for name in given["shapes"].split(","):
        measure(name, given["peers"] == "true", int(given["batch"]), ["perf/where.py", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
