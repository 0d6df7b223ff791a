"""Compare training with LLaMA-Factory and ms-swift: samples per processor second, memory, start.

ALIGN_SHARED=<folder with hub/> python -m perf.against_peers [shapes=...] [rounds=3] [steps=3]
[batch=8] [rows_a_pass=1,2,8 [sides=...]]

All sides train on the same rows, with random models behind the published processors, the same LoRA,
global batch 8, fp32, one thread. In each round every side runs once, in a separate process, in
turns. The first step warms up. The results are written to results/peers_<shape>.json after each
round. The ratio is the mean of the rounds' ratios, as logarithms. It uses processor seconds,
because wall-clock time depends on other work on the machine. A ratio is written only if all sides
train the same number of weights and their first losses agree to `TOLERANCE`.

`rows_a_pass=1,2,8` does not measure, but tries these numbers of rows per forward pass on all or
some sides -> results/peers_rows_a_pass.json.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from align.files import write_json
from align.methods.sampler import WholeBatches
from align.run_folder import git_commit, versions
from perf.against_trl import HERE, KEPT, folder_with_model, interval, plan_of, side, step_of
from perf.generation import machine
from perf.peers.environment import constraints, python_of
from perf.shapes import SHAPES, Shape

BATCH = 8
MEASURED = ("qwen2_vl_sft_mixed", "qwen2_vl_dpo_images", "llava_1_5_sft_mixed", "llava_1_5_dpo_images")
PEERS = {"ms-swift": "perf.peers.ms_swift", "llama-factory": "perf.peers.llama_factory"}
SIDES = ("align", *PEERS)
TOLERANCE = 1e-3
"""Maximum relative difference of first losses: the peers' templates differ by a few tokens
(`WHY_LOSSES_DIFFER`)."""
WHY_LOSSES_DIFFER = {
    "qwen2_vl": "the peers also supervise the newline behind <|im_end|>, one token a row",
    "llava_1_5": "the peers' templates differ from the published one by spaces and newlines around ASSISTANT:",
}
TRIED = HERE / "results" / "peers_rows_a_pass.json"


def shape_of(name: str, batch: int = BATCH) -> Shape:
    """A shape with the global batch of this comparison."""
    return replace(SHAPES[name], batch=batch)


def plans(
    name: str, folder: Path, steps: int, rows_a_pass: Mapping[str, int], batch: int = BATCH
) -> dict[str, dict[str, Any]]:
    """{side: its plan}."""
    shape = shape_of(name, batch)
    plan = plan_of(shape, folder, steps)
    order = list(WholeBatches(batch * steps, batch, seed=0, step=lambda: 0))
    # A recipe warms up over 3% of its steps, here the first step, which would then train nothing.
    # The peers do not warm up.
    train = plan["train"] | {"warmup_steps": 0}
    both = plan | {"family": shape.model, "order": order, "train": train}
    return {
        which: both
        | {
            "side": which,
            "rows_a_pass": rows_a_pass[which],
            "settings": [f"train.per_device_train_batch_size={rows_a_pass[which]}"],
        }
        for which in SIDES
    }


def trained(plan: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Train once on one side."""
    which = plan["side"]
    if which == "align":
        return side(plan, cache)
    return side(plan, cache, PEERS[which], python_of(which))


def fastest(name: str) -> dict[str, int]:
    """{side: the best of the tried numbers of rows per forward pass}; 1 if none was tried."""
    tried = json.loads(TRIED.read_text())["shapes"].get(name, {}) if TRIED.is_file() else {}
    return {which: int(min(tried[which], key=tried[which].get)) if which in tried else 1 for which in SIDES}


def measure(name: str, folder: Path, rounds: int, steps: int, batch: int, command: Sequence[str]) -> None:
    """Train in turns, print, and write the results after each round."""
    told = plans(name, folder, steps, fastest(name), batch)
    results: dict[str, list[dict[str, Any]]] = {which: [] for which in SIDES}
    for turn in range(rounds):
        for which in SIDES if turn % 2 else SIDES[::-1]:
            one = trained(told[which], folder / "cache")
            results[which].append(one)
            print(
                f"{name} round {turn + 1}: {which} {step_of(one, 'cpu_seconds'):.2f} s of processor a step", flush=True
            )
        result = compared(name, results, batch) | {
            "machine": machine(),
            "versions": versions(),
            "git_commit": git_commit(),
        }
        result |= {"command": list(command), "environment": KEPT | {"OMP_NUM_THREADS": "1"}}
        write_json(HERE / "results" / f"peers_{name}.json", result)
        print({peer: of["ratio"] for peer, of in result["over"].items()}, flush=True)


def compared(name: str, results: Mapping[str, Sequence[dict[str, Any]]], batch: int = BATCH) -> dict[str, Any]:
    """The results of all sides over all rounds, and our ratios over each peer."""
    ours = results["align"]
    same_as_ours(results)
    return {
        "schema": 1,
        "name": f"peers_{name}",
        "what": "samples per processor second of an optimizer step, over each peer's",
        "shape": vars(shape_of(name, batch)),
        "rounds": len(ours),
        "sides": {which: summary(of, batch) for which, of in results.items()},
        "over": {peer: ratios(ours, results[peer]) for peer in PEERS},
        "why_first_losses_differ": WHY_LOSSES_DIFFER[SHAPES[name].model],
        "peers": {peer: constraints(peer).read_text().splitlines()[1:] for peer in PEERS},
    }


def same_as_ours(results: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Raise SystemExit unless all sides have equal weights, threads and first losses."""
    one = results["align"][0]
    for which, of in results.items():
        for key in ("trainable", "threads"):
            if any(it[key] != one[key] for it in of):
                raise SystemExit(f"{which}: {key} {of[0][key]}, ours {one[key]}")
        if not np.allclose([it["losses"][0] for it in of], one["losses"][0], rtol=TOLERANCE):
            raise SystemExit(f"{which}: first loss {of[0]['losses'][0]}, ours {one['losses'][0]}")


def ratios(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Our ratios over a peer. Above 1: we are faster (speed), or use more memory (memory)."""
    ratio, low, high = interval(
        [step_of(b, "cpu_seconds") / step_of(a, "cpu_seconds") for a, b in zip(ours, theirs, strict=True)]
    )
    memory = [statistics.median(it["peak_memory_mib"] for it in of) for of in (ours, theirs)]
    # The interval of a single round is unknown, and JSON has no nan.
    known = {key: None if np.isnan(it) else it for key, it in (("low", low), ("high", high))}
    return {"ratio": ratio, **known, "memory_ratio": round(memory[0] / memory[1], 3)}


def summary(results: Sequence[dict[str, Any]], batch: int) -> dict[str, Any]:
    """The results of one side over all rounds."""
    seconds = statistics.median(step_of(it, "cpu_seconds") for it in results)
    return {
        "samples_per_cpu_second": round(batch / seconds, 3),
        "cpu_seconds_of_a_step": round(seconds, 3),
        "cpu_seconds_of_steps": [it["cpu_seconds"] for it in results],
        "seconds_of_steps": [it["seconds"] for it in results],
        "seconds_to_first_step": [it["seconds_to_first_step"] for it in results],
        "cpu_seconds_to_first_step": [it["cpu_seconds_to_first_step"] for it in results],
        "peak_memory_mib": [it["peak_memory_mib"] for it in results],
        "losses": results[0]["losses"],
        "trainable": results[0]["trainable"],
        "threads": results[0]["threads"],
        "settings": results[0]["settings"],
    }


def try_rows(
    name: str, folder: Path, numbers: Sequence[int], sides: Sequence[str], batch: int, command: Sequence[str]
) -> None:
    """Train two steps on each side with each number of rows per pass.

    Adds the second step's processor seconds to the earlier results.
    """
    found: dict[str, Any] = json.loads(TRIED.read_text()) if TRIED.is_file() else {"schema": 1, "shapes": {}}
    of_shape = found["shapes"].setdefault(name, {})
    for number in numbers:
        told = plans(name, folder, 2, dict.fromkeys(SIDES, number), batch)
        for which in sides:
            seconds = round(step_of(trained(told[which], folder / "cache"), "cpu_seconds"), 2)
            of_shape.setdefault(which, {})[str(number)] = seconds
            print(name, which, number, seconds, flush=True)
    found["what"] = "processor seconds of a step by rows (of DPO: pairs) of a forward pass"
    write_json(TRIED, found | {"machine": machine(), "git_commit": git_commit(), "command": list(command)})


def main(arguments: Sequence[str]) -> None:
    """Measure every shape in the arguments."""
    own = {"shapes": ",".join(MEASURED), "rounds": "3", "steps": "3", "batch": str(BATCH), "sides": ",".join(SIDES)}
    given = own | dict(it.split("=", 1) for it in arguments)
    if "ALIGN_SHARED" not in os.environ:
        raise SystemExit("perf.against_peers: ALIGN_SHARED is not set. Set it to a folder with hub/ (perf/README.md).")
    os.environ["OMP_NUM_THREADS"] = "1"
    command = ["perf/against_peers.py", *arguments]
    with tempfile.TemporaryDirectory() as room:
        for name in given["shapes"].split(","):
            folder = folder_with_model(Path(room), SHAPES[name])
            if "rows_a_pass" in given:
                numbers = [int(it) for it in given["rows_a_pass"].split(",")]
                try_rows(name, folder, numbers, given["sides"].split(","), int(given["batch"]), command)
            else:
                measure(name, folder, int(given["rounds"]), int(given["steps"]), int(given["batch"]), command)


if __name__ == "__main__":
    main(sys.argv[1:])
