"""Measure the data path of training at growing sizes: time to start, memory, and rows per second.

    python perf/data.py [model=mini_llava] [rows=1000,10000,100000] [files=100000] [images=500] [batches=60]

Rows are read from a local jsonl file. Each row has its own image file, up to `files` files; further
rows share them. The files are JPEGs of 640 x 480, of which `images` are different. Each size is
measured in a separate process: reading the rows, the first fingerprint (every image is decoded),
the second fingerprint (from the cache), the dataset for the trainer, then batches of 8 that are
rendered and collated as in a data loader worker. Memory is measured after each part. For
comparison, a step is the forward and backward pass of the same rows through the model, on the same
machine and one thread.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from align.data.assembly import TrainingData
from align.data.local import read_file
from align.files import write_json
from align.run_folder import git_commit, versions
from align.settings import Part

DEFAULTS = {"model": "mini_llava", "rows": "1000,10000,100000", "files": "100000", "images": "500", "batches": "60"}
BATCH = 8


def main(arguments: Sequence[str]) -> None:
    """Measure each size in a separate process, print, and write results/data_<model>.json.

    Other sizes than the default: data_<model>_<rows>.json.
    """
    given = DEFAULTS | dict(argument.split("=", 1) for argument in arguments)
    if "file" in given:
        print(json.dumps(measure(Path(given["file"]), given["model"], int(given["batches"]))))
        return
    measured = []
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        draw(folder / "drawn", int(given["images"]))
        for size in map(int, given["rows"].split(",")):
            file = write(folder / str(size), folder / "drawn", size, int(given["files"]))
            command = [
                sys.executable,
                __file__,
                f"file={file}",
                *(f"{key}={given[key]}" for key in ("model", "batches")),
            ]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            measured.append({"rows": size} | json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(measured[-1]), flush=True)
    name = f"data_{given['model']}" + ("" if given["rows"] == DEFAULTS["rows"] else f"_{given['rows']}")
    result = {
        "schema": 1,
        "name": name,
        "measured": measured,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": versions(),
        "commit": git_commit(),
        "command": f"python perf/data.py {' '.join(arguments)}".strip(),
    }
    write_json(Path(__file__).parent / "results" / f"{name}.json", result)


def measure(file: Path, model: str, batches: int) -> dict[str, Any]:
    """Seconds of each part, and MiB of this process after it."""
    found: dict[str, Any] = {}
    rows = _timed(found, "rows read", lambda: read_file("perf", Part(path=str(file)), "benign").rows)
    user_cache = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(file.parent / "cache")  # image hashes are written there, and deleted afterwards
    for what in ("images hashed", "images hashed again"):
        data = TrainingData(rows, {"rows": len(rows)}, [])
        _timed(found, what, data.verify_images)
    os.environ.pop("XDG_CACHE_HOME")
    os.environ |= {} if user_cache is None else {"XDG_CACHE_HOME": user_cache}
    from align.methods.trainer import to_dataset  # includes the memory of the libraries

    dataset = _timed(found, "data set", lambda: to_dataset(rows))

    found |= _loaded(dataset, model, batches)
    return found


def _loaded(dataset: Any, model: str, batches: int) -> dict[str, Any]:
    import torch

    from align.batches.collators import Collator
    from align.config.compose import compose_eval
    from align.models.loading import load

    torch.set_num_threads(1)
    loaded = load(compose_eval([f"model={model}", "benchmark=mini_vsil", "model.dtype=float32"]).config.model)
    collate = Collator(loaded.renderer, None)
    order = np.random.default_rng(0).permutation(len(dataset))[: batches * BATCH]
    seconds: dict[str, list[float]] = {"data": [], "step": []}
    memory = []
    for i in range(0, len(order), BATCH):
        begun = time.perf_counter()
        batch = collate([dataset[int(k)] for k in order[i : i + BATCH]])
        half = time.perf_counter()
        inputs = {key: value for key, value in batch.items() if key not in ("row_index", "supervised_tokens")}
        loaded.model(**inputs).loss.backward()
        seconds["data"].append(half - begun)
        seconds["step"].append(time.perf_counter() - half)
        memory.append(_mib())
    data, step = (BATCH / float(np.median(times)) for times in seconds.values())
    quarter = max(len(memory) // 4, 1)
    return {
        "rows a second, data path": round(data, 1),
        "rows a second, model's step": round(step, 1),
        "ratio": round(data / step, 3),
        "MiB, first and last quarter of the batches": [
            round(float(np.median(memory[:quarter]))),
            round(float(np.median(memory[-quarter:]))),
        ],
    }


def _timed(found: dict[str, Any], what: str, call: Any) -> Any:
    begun = time.perf_counter()
    result = call()
    found[what] = {"seconds": round(time.perf_counter() - begun, 2), "MiB": _mib()}
    return result


def _mib() -> int:
    return int(psutil.Process().memory_info().rss >> 20)


def draw(folder: Path, images: int) -> None:
    """Write `count` different JPEGs into a new folder."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(images):
        # Smooth colours with some noise: about as many bytes as a photograph of this size.
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(
            (640, 480), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(coarse, dtype=np.int16) + rng.integers(-12, 12, (480, 640, 1), dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.jpg", quality=85)


def write(folder: Path, drawn: Path, size: int, files: int) -> Path:
    """Write rows.jsonl and the image files of its rows into a new folder -> rows.jsonl."""
    (folder / "images").mkdir(parents=True)
    images = sorted(drawn.iterdir())
    with (folder / "rows.jsonl").open("w") as file:
        for i in range(size):
            if i < files:
                (folder / "images" / f"{i}.jpg").hardlink_to(images[i % len(images)])
            record = {
                "prompt": f"what is this thing number {i}",
                "image": f"images/{i % files}.jpg",
                "response": "this is a red cup",
            }
            file.write(json.dumps(record) + "\n")
    return folder / "rows.jsonl"


if __name__ == "__main__":
    main(sys.argv[1:])
