"""The data path behind the real processors: rows checked before a start, rows rendered, and their share of a step.

    python -m perf.rendering hub=<folder> [rows=40] [steps=10] [checked=100000]

`hub` holds the processor files of llava-1.5-7b-hf and qwen2-vl-7b-instruct, without weights. Behind each stands a random model of three
thin layers with the real vocabulary. Measured in one process of one thread, turn by turn, unless it says otherwise:

- rendering: the first row after the processor was loaded (cold), then rows a second (warm), each a JPEG of 640 x 480 and an answer;
- the same where every answer asks the tokenizer for its whole vocabulary, as earlier versions did to find the end of a turn;
- `recipe=mm_sft` on `rows` rows, `steps` steps of 20, either way, and the share that rendering takes;
- the check of `checked` rows, an image file each, before a start: the first time on all processors, and again.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align.config import compose_run
from align.data.collation import Collator
from align.data.local import read_file
from align.data.rendering import Renderer
from align.devices import usable_processors
from align.files import write_json
from align.models import loading
from align.models.loading import load_without_weights
from align.rows import Row
from align.run_folder import git_commit, versions
from align.settings import ModelSettings, Part
from align.train import train as run_training
from align.training.row_checks import Bounds, Checker, faults_of, measured
from perf.data import draw, write
from tests.support.real_input import HUB, small_model

DEFAULTS = {"rows": "40", "steps": "10", "checked": "100000"}
BATCH = 20


class AsksForTheVocabulary(Renderer):
    """Finds the end of a turn anew for each answer, in the tokenizer's whole vocabulary."""

    @property
    def end_of_turn(self) -> str:
        """What ends an answer."""
        return self.family.end_of_turn(self.processor)

    @end_of_turn.setter
    def end_of_turn(self, _: str) -> None:
        pass


WAYS = {"end of a turn found once": Renderer, "end of a turn found for each answer": AsksForTheVocabulary}


def main(arguments: Sequence[str]) -> None:
    """Measure both processors, print, and write results/rendering.json."""
    given = DEFAULTS | dict(argument.split("=", 1) for argument in arguments)
    rows, steps, checked = (int(given[key]) for key in ("rows", "steps", "checked"))
    found = {}
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        draw(folder / "drawn", 100)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        files = {size: write(folder / str(size), folder / "drawn", size, size) for size in {rows, checked}}
        for family, name in HUB.items():
            small_model(Path(given["hub"], name), folder / family)
            found[family] = measure(folder / family, files[rows], steps) | {
                "check": check(folder / family, files[checked])
            }
            print(family, found[family], flush=True)
    result = {
        "schema": 1,
        "name": "rendering",
        "measured": found,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": versions(),
        "commit": git_commit(),
        "command": f"python -m perf.rendering hub=<folder> {' '.join(a for a in arguments if not a.startswith('hub='))}".strip(),
    }
    write_json(Path(__file__).parent / "results" / "rendering.json", result)


def measure(model: Path, file: Path, steps: int) -> dict[str, Any]:
    """Rows a second of rendering, and seconds of training, either way."""
    torch.set_num_threads(1)
    rows = read_file("perf", Part(path=str(file)), "benign").rows
    loaded = load_without_weights(ModelSettings(name="small", path=str(model)))
    cold = _seconds(lambda: Renderer(loaded.processor, loaded.family).render(rows[0], rows[0].response))
    found: dict[str, Any] = {"seconds of the first row (cold)": round(cold, 4)}
    for name, kind in WAYS.items():
        rendering = _median_of(kind(loaded.processor, loaded.family), rows)
        seconds = _train(kind, model, file, steps)
        found[name] = {
            "rows a second (warm)": round(1 / rendering, 1),
            "seconds of training": round(seconds, 2),
            "share of rendering": round(steps * BATCH * rendering / seconds, 3),
        }
    before, after = (found[name]["seconds of training"] for name in reversed(WAYS))
    return found | {"training, before over after": round(before / after, 2)}


def _train(kind: type[Renderer], model: Path, file: Path, steps: int) -> float:
    """Seconds of so many steps of `recipe=mm_sft`, by the run's own clock."""
    data = [f"data.own={{source: local, path: {file}, role: benign}}", "data.harmful=null", "data.benign=null"]
    settings = [f"train.max_steps={steps}", f"global_batch_size={BATCH}", "train.report_to=none", "model.dtype=float32"]
    pixels = ["model.min_pixels=3136", "model.max_pixels=25088"] if "qwen" in str(model) else []
    loading.Renderer = kind  # type: ignore[misc]
    try:
        with tempfile.TemporaryDirectory() as run:
            words = ["recipe=mm_sft", f"model={model}", "evaluate.benchmark=[]", f"output_dir={run}/run"]
            done = run_training(compose_run([*words, *data, *settings, *pixels]))
            return float(done.manifest()["seconds"])
    finally:
        loading.Renderer = Renderer  # type: ignore[misc]


def check(model: Path, file: Path) -> dict[str, Any]:
    """Seconds of checking rows before a start, the first time and again."""
    rows = read_file("perf", Part(path=str(file)), "benign").rows
    loaded = load_without_weights(ModelSettings(name="small", path=str(model)))
    checker = Checker(Collator(loaded.renderer))
    found: dict[str, Any] = {"rows": len(rows), "processes": usable_processors()}
    for turn in ("seconds, the first time", "seconds, again"):
        begun = time.perf_counter()
        faults = faults_of(rows, measured(checker, rows, "perf"), Bounds(None, loaded.positions))
        found[turn] = round(time.perf_counter() - begun, 1)
    return found | {"faults": len(faults)}


def _median_of(renderer: Renderer, rows: Sequence[Row]) -> float:
    """Seconds of rendering a row."""
    return float(np.median([_seconds(partial(renderer.render, row, row.response)) for row in rows]))


def _seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main(sys.argv[1:])
