"""Where the time of a step goes, on either side at its fastest settings:

    python -m perf.where [shapes=sft_mixed]

The second step under torch's profiler, each side in a process of its own: seconds by kind of work -> results/where_<shape>.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from align.files import write_json
from align.run_folder import git_commit, versions
from perf.against_trl import HERE, KEPT, plan_of
from perf.generation import machine
from perf.one_side import Steps, ours, trls
from perf.shapes import SHAPES, VOCABULARY, write_model

STEPS = 2


class Profiled(Steps):
    """Times the second step's operations."""

    def __init__(self) -> None:
        super().__init__()
        self.profile = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
        self.seconds: dict[str, float] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The second step begins."""
        if state.global_step == STEPS - 1:
            self.profile.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """It ended."""
        super().on_step_end(args, state, control, **more)
        if state.global_step == STEPS:
            self.profile.stop()
            for event in self.profile.key_averages(group_by_input_shape=True):
                kind = kind_of(event.key, event.input_shapes)
                self.seconds[kind] = self.seconds.get(kind, 0.0) + event.self_cpu_time_total / 1e6


def kind_of(operation: str, shapes: Any) -> str:
    """What an operation is for, by its name and the sizes it is given."""
    is_head = any(VOCABULARY in shape for shape in shapes if isinstance(shape, list))
    is_product = operation in ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::convolution")
    if is_head:
        return "the head's products" if is_product else "the head's softmax"
    if "attention" in operation:
        return "attention"
    return "the layers' products" if is_product else "the rest"


def main(arguments: Sequence[str]) -> None:
    """Measure each side, or be one: `plan.json result.json`."""
    if arguments and arguments[0].endswith(".json"):
        plan, steps = json.loads(Path(arguments[0]).read_text()), Profiled()
        torch.manual_seed(0)
        {"align": ours, "trl": trls}[plan["side"]](plan, Path(arguments[1]).parent, steps)
        write_json(Path(arguments[1]), {kind: round(seconds, 3) for kind, seconds in steps.seconds.items()})
        return
    [name] = [argument.partition("=")[2] for argument in arguments] or ["sft_mixed"]
    best = json.loads((HERE / "results" / "best_settings.json").read_text())[name]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder, "model"))
        for which in ("trl", "align"):
            plan = plan_of(SHAPES[name], Path(folder), STEPS) | {"side": which, "settings": best[which]["best"]}
            files = [Path(folder, f"{which}-{kind}.json") for kind in ("plan", "result")]
            files[0].write_text(json.dumps(plan))
            command = [sys.executable, "-m", "perf.where", *map(str, files)]
            subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True, env=os.environ | KEPT)
            found[which] = json.loads(files[1].read_text())
            print(which, found[which], flush=True)
    result = {
        "schema": 1,
        "name": f"where_{name}",
        "what": "seconds of the second step by kind of work, under torch's profiler",
        "seconds": found,
        "settings": {which: best[which]["best"] for which in found},
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
        "command": ["perf/where.py", *arguments],
    }
    write_json(HERE / "results" / f"where_{name}.json", result)


if __name__ == "__main__":
    main(sys.argv[1:])
