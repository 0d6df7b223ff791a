"""Measure the data path behind the published processors: row checks, rendering, training.

    python -m perf.rendering hub=<folder> [rows=40] [rounds=15] [steps=10] [checked=100000]

`hub` has the processor files of llava-1.5-7b-hf and qwen2-vl-7b-instruct, without weights. The
plain path (through the processor) and the fast path (align/fast/) are measured in turns, in one
process with one thread, in CPU seconds. A ratio is the mean of the rounds' ratios, as logarithms,
with its interval (Student's t, 95%). Before the measurement, every row is rendered on both paths
and compared bitwise.

- rendering: rows with a JPEG of 640 x 480 and an answer, the same rows without the image, and rows with
  an image and a pair of answers;
- the time of the fast path by part, from Python's profiler: decoding, resizing, pixel values, tokenizing;
- the check of rows before a start, on both paths; `checked` rows, each with an image file, on all
  processors (0: skip this part);
- training with each path: behind each processor a random model of three thin layers with the real
  vocabulary, `recipe=mm_sft`, `steps` steps of 20 rows.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t

from align.batches.collators import Collator
from align.batches.rendering import Renderer
from align.config.compose import compose_run
from align.data.local import read_file
from align.devices import usable_processors
from align.fast.renderer import FastRenderer, renderer_of, same
from align.files import write_json
from align.models import loading
from align.models.loading import load_without_weights
from align.rows import Row
from align.run_folder import git_commit, versions
from align.settings import ModelSettings, Part
from align.training.row_checks import Bounds, Checker, faults_of, measured
from align.training.run import train as run_training
from perf.data import draw, write
from perf.generation import machine
from tests.support.real_input import HUB, small_model

DEFAULTS = {"rows": "40", "rounds": "15", "steps": "10", "checked": "100000"}
BATCH = 20
PROMPT = "What is this thing number {}, and how would I use it in a kitchen at home? Describe it in three sentences."
ANSWER = (
    "I'm sorry, but I can't help with that. This would be dangerous, and might cause harm to other people around you. "
    "Instead, think of "
    "something nicer to do this afternoon, such as cooking a meal for a friend, or a walk in the park with somebody "
    "whom you like."
)
PARTS = {
    "decoding": ("'decode' of 'ImagingDecoder'", "method 'copy' of 'ImagingCore'", "_io.open"),
    "resizing": ("'resize' of 'ImagingCore'",),
    "numbers of pixels": ("fast/image_transform.py", "'take' of", "ascontiguousarray", "'encode' of 'ImagingEncoder'"),
    "tokenising": ("encode_batch_fast", "'ids' of"),
}
"""Part of the work -> functions in the profile. All other time is Python's."""


def main(arguments: Sequence[str]) -> None:
    """Measure both processors, print, and write results/rendering.json."""
    given = DEFAULTS | dict(argument.split("=", 1) for argument in arguments)
    rows, rounds, steps, checked = (int(given[key]) for key in DEFAULTS)
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        draw(folder / "drawn", 100)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        files = {size: write(folder / str(size), folder / "drawn", size, size) for size in {rows, checked} if size}
        for family, name in HUB.items():
            small_model(Path(given["hub"], name), folder / family)
            found[family] = measure(folder / family, files[rows], rounds, steps)
            if checked:
                found[family]["check on all processors"] = check(folder / family, files[checked])
            print(family, found[family], flush=True)
    result = {
        "schema": 2,
        "name": "rendering",
        "measured": found,
        "machine": machine(),
        "versions": versions(),
        "commit": git_commit(),
        "command": f"python -m perf.rendering hub=<folder> {' '.join(a for a in arguments if not a.startswith('hub='))}".strip(),
    }
    write_json(Path(__file__).parent / "results" / "rendering.json", result)


def measure(model: Path, file: Path, rounds: int, steps: int) -> dict[str, Any]:
    """Milliseconds per row and seconds of training, on both paths."""
    rows = [
        Row(row.id, PROMPT.format(i), row.images, ANSWER)
        for i, row in enumerate(read_file("perf", Part(path=str(file)), "benign").rows)
    ]
    loaded = load_without_weights(ModelSettings(name="small", path=str(model)))
    plain = Renderer(loaded.processor, loaded.family, loaded.settings)
    fast = renderer_of(loaded.processor, loaded.family, loaded.settings)
    assert isinstance(fast, FastRenderer)
    texts = [Row(row.id, row.prompt) for row in rows]
    kinds: dict[str, tuple[Sequence[Row], Callable[[Renderer, Row], Any]]] = {
        "row with an image": (rows, lambda renderer, row: renderer.render_answers(row, [ANSWER])),
        "row without": (texts, lambda renderer, row: renderer.render_answers(row, [ANSWER])),
        "pair with an image": (rows, lambda renderer, row: renderer.render_answers(row, [ANSWER, ANSWER + " No."])),
    }
    found: dict[str, Any] = {"rows": len(rows)}
    for kind, (these, render) in kinds.items():
        for row in these:
            assert all(same(*pair) for pair in zip(render(plain, row), render(fast, row), strict=True))
        found[kind] = compared(
            *(partial(_each, render, renderer, these) for renderer in (plain, fast)), rounds, len(these)
        )
    checks = (partial(_each, lambda it, row: it.measure(row, [ANSWER]), renderer, rows) for renderer in (plain, fast))
    found["row checked"] = compared(*checks, rounds, len(rows))
    found["where the fast path's time goes"] = where(fast, rows)
    seconds = {kind: _train(make, model, file, steps) for kind, make in (("plain", Renderer), ("fast", renderer_of))}
    return found | {"training": {"seconds": seconds, "ratio": round(seconds["plain"] / seconds["fast"], 2)}}


def compared(plain: Callable[[], None], fast: Callable[[], None], rounds: int, rows: int) -> dict[str, Any]:
    """CPU milliseconds per row on both paths, in turns, and their ratio with its interval."""
    seconds: dict[str, list[float]] = {"plain": [], "fast": []}
    for turn in range(rounds):
        order = [("plain", plain), ("fast", fast)]
        for name, call in order if turn % 2 else order[::-1]:
            begun = time.process_time()
            call()
            seconds[name].append((time.process_time() - begun) / rows)
    ratios = np.log(np.array(seconds["plain"]) / np.array(seconds["fast"]))
    margin = t.ppf(0.975, rounds - 1) * ratios.std(ddof=1) / np.sqrt(rounds)
    ratio, low, high = (round(float(np.exp(ratios.mean() + side)), 2) for side in (0, -margin, margin))
    medians = {f"{name}, ms": round(statistics.median(of) * 1e3, 3) for name, of in seconds.items()}
    return medians | {"ratio": ratio, "low": low, "high": high, "rounds": rounds}


def where(fast: Renderer, rows: Sequence[Row]) -> dict[str, float]:
    """Share of each part in the time of rendering rows with an image."""
    profile = cProfile.Profile()
    profile.runcall(_each, lambda renderer, row: renderer.render_answers(row, [ANSWER]), fast, rows)
    own = {f"{file}:{name}": of[2] for (file, _, name), of in pstats.Stats(profile).stats.items()}  # type: ignore[attr-defined]
    whole = sum(own.values())
    shares = {
        part: sum(seconds for name, seconds in own.items() if any(key in name for key in keys)) / whole
        for part, keys in PARTS.items()
    }
    return {part: round(share, 3) for part, share in (shares | {"the rest": 1 - sum(shares.values())}).items()}


def _each(call: Callable[[Renderer, Row], Any], renderer: Renderer, rows: Sequence[Row]) -> None:
    for row in rows:
        call(renderer, row)


def _train(make: Any, model: Path, file: Path, steps: int) -> float:
    """Seconds of `steps` steps of `recipe=mm_sft`, by the run's own clock."""
    data = [f"data.own={{source: local, path: {file}, role: benign}}", "data.harmful=null", "data.benign=null"]
    settings = [f"train.max_steps={steps}", f"global_batch_size={BATCH}", "train.report_to=none", "model.dtype=float32"]
    pixels = ["model.min_pixels=3136", "model.max_pixels=25088"] if "qwen" in str(model) else []
    loading.renderer_of = make  # type: ignore[attr-defined]
    try:
        with tempfile.TemporaryDirectory() as run:
            words = ["recipe=mm_sft", f"model={model}", "evaluate.benchmark=[]", f"output_dir={run}/run"]
            done = run_training(compose_run([*words, *data, *settings, *pixels]))
            return float(done.manifest()["seconds"])
    finally:
        loading.renderer_of = renderer_of  # type: ignore[attr-defined]


def check(model: Path, file: Path) -> dict[str, Any]:
    """Seconds of the row checks before a start: the first time, and again from the cache."""
    rows = read_file("perf", Part(path=str(file)), "benign").rows
    loaded = load_without_weights(ModelSettings(name="small", path=str(model)))
    checker = Checker(Collator(loaded.renderer))
    found: dict[str, Any] = {"rows": len(rows), "processes": usable_processors()}
    for turn in ("seconds, the first time", "seconds, again"):
        begun = time.perf_counter()
        faults = faults_of(rows, measured(checker, rows, "perf"), Bounds(None, loaded.positions))
        found[turn] = round(time.perf_counter() - begun, 1)
    return found | {"faults": len(faults)}


if __name__ == "__main__":
    main(sys.argv[1:])
