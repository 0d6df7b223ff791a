"""Find the fastest settings of both sides with the same losses -> results/best_settings.json.

    python -m perf.best_settings [shapes=dpo_images,sft_images,sft_text,sft_mixed]

Settings are tried one after another for each shape, and a value is kept if it is faster: the rows
of a forward pass, and for trl also the workers that prepare rows, the attention implementation and
the implementation of its loss. Our side may not use more memory than trl's fastest settings. Every
try trains `STEPS` steps in a separate process; the first step warms up.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from align.files import write_json
from perf.against_trl import agree, folder_with_model, plan_of, side, step_of
from perf.shapes import SHAPES, Shape

FILE = Path(__file__).parent / "results" / "best_settings.json"
STEPS = 3


def choices(which: str, shape: Shape) -> Iterator[list[str]]:
    """Values of each setting in turn, combined with the settings chosen before."""
    halves = [shape.batch // 2**k for k in range(shape.batch.bit_length()) if shape.batch % 2**k == 0]
    yield [f"train.per_device_train_batch_size={rows}" for rows in halves]
    if which == "trl":
        yield ["train.dataloader_num_workers=1"]
        yield ["model.attn_implementation=eager"]
        if shape.method == "sft":
            yield ["train.loss_type=chunked_nll"]


def search(name: str, which: str, folder: Path, limit: float = float("inf")) -> dict[str, Any]:
    """The fastest settings of one side that use at most `limit` MiB, and all tries."""
    best: dict[str, Any] = {}
    tried = []
    for values in choices(which, SHAPES[name]):
        fastest = best
        for value in values:
            settings = [*best.get("settings", []), value]
            result = side(
                plan_of(SHAPES[name], folder, STEPS) | {"side": which, "settings": settings}, folder / "cache"
            )
            one = {
                "settings": settings,
                "seconds_of_a_step": round(step_of(result), 2),
                "peak_memory_mib": result["peak_memory_mib"],
                "losses": result["losses"],
            }
            one["same_losses"] = agree(one["losses"], (tried or [one])[0]["losses"])
            tried.append(one)
            print(f"{name} {which}: {json.dumps(one)}", flush=True)
            within = one["same_losses"] and one["peak_memory_mib"] <= limit
            if within and one["seconds_of_a_step"] < fastest.get("seconds_of_a_step", float("inf")):
                fastest = one
        best = fastest
    return {"best": best["settings"], "peak_memory_mib": best["peak_memory_mib"], "tried": tried}


def main(arguments: Sequence[str]) -> None:
    """Search each shape in the arguments; results of other shapes stay."""
    own = [name for name, shape in SHAPES.items() if shape.settings_of is None]
    names = arguments[0].removeprefix("shapes=").split(",") if arguments else own
    found = json.loads(FILE.read_text()) if FILE.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            room = folder_with_model(Path(folder), SHAPES[name])
            theirs = search(name, "trl", room)
            ours = search(name, "align", room, theirs["peak_memory_mib"])
            found[name] = {"trl": theirs, "align": ours}
            write_json(FILE, found)


if __name__ == "__main__":
    main(sys.argv[1:])
