"""Compare training here with plain trl: samples per second and peak memory.

python -m perf.against_trl [shapes=dpo_images,sft_images,sft_text,sft_mixed] [rounds=3] [steps=5]
[allocator=kept] [layout=auto]

Both sides train the same model and adapter on the same rows, with the same batch and precision. In
each round every side runs once, in a separate process, in turns. The first step warms up; the time
of the other steps is added up, because their rows differ. The ratio is the mean of the rounds'
ratios, as logarithms, with its interval (Student's t, 95%). A ratio is printed only if the first
five losses agree. Each side uses its fastest settings (results/best_settings.json, written by
`python -m perf.best_settings`).

`allocator=default` does not change glibc's allocator, which both sides otherwise tune
-> results/<shape>_default_allocator.json. The shapes of Qwen2-VL need the published processor:
ALIGN_SHARED is a folder with hub/qwen2-vl-7b-instruct.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from align.files import write_json
from align.run_folder import git_commit, versions
from perf.generation import machine
from perf.shapes import SHAPES, Shape, at_hand, write_model, write_rows

HERE = Path(__file__).parent
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
"""glibc keeps freed memory, on both sides. Otherwise each step waits for the pages of its large
tensors, for varying times."""
ALLOCATORS = {"kept": KEPT, "default": {}}
WARM_UP = 1
COMPARED = 5
TRAIN = {
    "learning_rate": 1e-4,
    "logging_steps": 1,
    "save_strategy": "no",
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
    "report_to": "none",
    "disable_tqdm": True,
}


def best_settings(name: str) -> dict[str, list[str]]:
    """{side: its fastest settings} of a shape."""
    searched = SHAPES[name].settings_of or name
    found = json.loads((HERE / "results" / "best_settings.json").read_text())[searched]
    return {which: it["best"] for which, it in found.items()}


def side(
    plan: dict[str, Any], cache: Path, module: str = "perf.one_side", python: str | Path = sys.executable
) -> dict[str, Any]:
    """Train once in a separate process -> the result of `module`. `cache` is its cache folder."""
    with tempfile.TemporaryDirectory() as name:
        plan_file, result_file = Path(name, "plan.json"), Path(name, "result.json")
        plan_file.write_text(json.dumps(plan))
        command = [str(python), "-m", module, str(plan_file), str(result_file)]
        inherited = {key: value for key, value in os.environ.items() if key not in KEPT}
        environment = inherited | ALLOCATORS[plan.get("allocator", "kept")] | {"XDG_CACHE_HOME": str(cache)}
        began = time.time()
        done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(f"{plan['side']}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
        result: dict[str, Any] = json.loads(result_file.read_text())
        if "first_step_done" in result:
            result["seconds_to_first_step"] = round(result.pop("first_step_done") - began, 2)
        return result


def folder_with_model(room: Path, shape: Shape) -> Path:
    """A folder for each kind of model, in which `model` is written once."""
    folder = room / shape.model
    if not folder.exists():
        write_model(folder / "model", shape.model)
    return folder


def plan_of(shape: Shape, folder: Path, steps: int) -> dict[str, Any]:
    """The plan of a shape for both sides.

    The model is in `folder`, and the rows are written there.
    """
    loss = {"loss_type": ["sigmoid"], "loss_weights": None, "beta": 0.1} if shape.method == "dpo" else {}
    return {
        "method": shape.method,
        "recipe": f"{'mm' if shape.with_image else 't'}_{shape.method}",
        "model": str(folder / "model"),
        "rows": str(write_rows(folder / "rows", shape, shape.batch * steps)),
        "batch": shape.batch,
        "train": TRAIN | loss | {"max_steps": steps},
    }


def agree(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Whether the first losses are the same, within fp32 rounding."""
    return bool(np.allclose(ours[:COMPARED], theirs[:COMPARED], rtol=1e-4))


def measure(
    name: str, folder: Path, rounds: int, steps: int, allocator: str, settings: Sequence[str], command: Sequence[str]
) -> None:
    """Train in turns, print the ratios, and write results/<name>.json.

    With cached log-probabilities: <name>_stored.json.
    """
    plan, cache = plan_of(SHAPES[name], folder, steps) | {"allocator": allocator}, folder / "cache"
    best = best_settings(name)
    sides = {
        which: plan | {"side": which, "settings": [*best[which], *given]}
        for which, given in {"trl": [], "align": settings}.items()
    }
    if SHAPES[name].method == "dpo":
        sides["stored"] = sides["align"] | {"settings": [*sides["align"]["settings"], "stored_reference=true"]}
        side(sides["stored"], cache)  # fills the cache that the measured runs read
    results: dict[str, list[dict[str, Any]]] = {which: [] for which in sides}
    for turn in range(rounds):
        for which in list(sides) if turn % 2 else list(sides)[::-1]:
            results[which].append(side(sides[which], cache))
            print(f"{name} round {turn + 1}: {which} {step_of(results[which][-1]):.2f} s a step", flush=True)
    theirs = results.pop("trl")
    suffix = "" if allocator == "kept" else f"_{allocator}_allocator"
    for which, ours in results.items():
        file = (name if which == "align" else f"{name}_{which}") + suffix
        report(file, name, ours, theirs, {"command": list(command), "environment": ALLOCATORS[allocator]})


def report(
    name: str,
    shape: str,
    ours: Sequence[dict[str, Any]],
    theirs: Sequence[dict[str, Any]],
    how: dict[str, Any],
) -> None:
    """Print a ratio and write it, if the losses are the same."""
    if not all(agree(one["losses"], theirs[0]["losses"]) for one in (*ours, *theirs)):
        losses, others = (of[0]["losses"][:COMPARED] for of in (ours, theirs))
        print(f"{name}: losses differ, so no ratio: {losses}, trl {others}")
        return
    rounds = len(ours)
    ratio, low, high = interval([step_of(b) / step_of(a) for a, b in zip(ours, theirs, strict=True)])
    of_cpu = interval(
        [step_of(b, "cpu_seconds") / step_of(a, "cpu_seconds") for a, b in zip(ours, theirs, strict=True)]
    )
    peaks = [statistics.median(one["peak_memory_mib"] for one in of) for of in (ours, theirs)]
    result = {
        "schema": 1,
        "name": name,
        "what": "samples per second of an optimizer step, over plain trl's",
        "ratio": ratio,
        "low": low,
        "high": high,
        "rounds": rounds,
        "ratio_of_cpu_seconds": of_cpu,
        "memory_ratio": round(peaks[0] / peaks[1], 3),
        "shape": vars(SHAPES[shape]),
        "losses_agree": min(COMPARED, len(ours[0]["losses"])),
        "ours": summary(shape, ours),
        "peer": summary(shape, theirs),
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
        **how,
    }
    file = HERE / "results" / f"{name}.json"
    write_json(file, result)
    print(
        f"{name}: {ratio} times trl's samples per second (95%: {low} to {high}, {rounds} rounds), "
        f"{peaks[0] / peaks[1]:.2f} of its "
        f"memory; {file}",
        flush=True,
    )


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """(Mean of the rounds' ratios as logarithms, its 95% interval by Student's t).

    The interval is nan for one round.
    """
    logs = np.log(ratios)
    margin = t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs)) if len(logs) > 1 else np.nan
    mean, low, high = (round(float(np.exp(logs.mean() + side)), 2) for side in (0, -margin, margin))
    return mean, low, high


def step_of(result: dict[str, Any], of: str = "seconds") -> float:
    """Mean seconds of a step after the first.

    `cpu_seconds` are those of the training process, without its workers.
    """
    return statistics.mean(result[of][WARM_UP:])


def summary(name: str, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The results of one side over all rounds."""
    return {
        "samples_per_second": round(SHAPES[name].batch / statistics.median(map(step_of, results)), 3),
        "seconds_of_steps": [one["seconds"] for one in results],
        "cpu_seconds_of_steps": [one["cpu_seconds"] for one in results],
        "peak_memory_mib": [one["peak_memory_mib"] for one in results],
        "losses": results[0]["losses"],
        "settings": results[0]["settings"],
        "threads": results[0]["threads"],
    }


def main(arguments: Sequence[str]) -> None:
    """Measure every shape in the arguments."""
    given = dict(argument.split("=", 1) for argument in arguments)
    own = {"shapes": ",".join(at_hand()), "rounds": "3", "steps": str(COMPARED), "allocator": "kept"}
    told = own | {key: value for key, value in given.items() if key in own}
    settings = [f"{key}={value}" for key, value in given.items() if key not in own]
    with tempfile.TemporaryDirectory() as folder:
        for name in told["shapes"].split(","):
            measure(
                name,
                folder_with_model(Path(folder), SHAPES[name]),
                int(told["rounds"]),
                int(told["steps"]),
                told["allocator"],
                settings,
                ["perf/against_trl.py", *arguments],
            )


if __name__ == "__main__":
    main(sys.argv[1:])
