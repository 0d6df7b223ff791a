"""Where the time of a step goes, on either side at its fastest settings:

    python -m perf.where [shapes=sft_mixed,...]

The second step under torch's profiler, each side in a process of its own: seconds by kind of work -> results/where_<shape>.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from align.files import write_json
from align.run_folder import git_commit, versions
from perf.against_trl import HERE, best_settings, folder_with_model, plan_of, side
from perf.generation import machine
from perf.one_side import ours, trls
from perf.shapes import SHAPES, VOCABULARY
from perf.steps import Steps

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


def measure(name: str) -> None:
    """Each side of a shape, printed and written."""
    best, found = best_settings(name), {}
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(SHAPES[name], folder_with_model(Path(folder), SHAPES[name]), STEPS)
        for which in ("trl", "align"):
            told = plan | {"side": which, "settings": best[which]}
            found[which] = side(told, Path(folder, "cache"), "perf.where")
            print(which, found[which], flush=True)
    result = {
        "schema": 1,
        "name": f"where_{name}",
        "what": "seconds of the second step by kind of work, under torch's profiler",
        "seconds": found,
        "settings": best,
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
        "command": ["perf/where.py", f"shapes={name}"],
    }
    write_json(HERE / "results" / f"where_{name}.json", result)


def profiled(plan_file: Path, result_file: Path) -> None:
    """One side, in this process."""
    plan, steps = json.loads(plan_file.read_text()), Profiled()
    torch.manual_seed(0)
    {"align": ours, "trl": trls}[plan["side"]](plan, result_file.parent, steps)
    write_json(result_file, {kind: round(seconds, 3) for kind, seconds in steps.seconds.items()})


def main(arguments: Sequence[str]) -> None:
    """Measure the shapes that are asked for, or be a side: `<plan.json> <result.json>`."""
    if len(arguments) == 2:
        profiled(*map(Path, arguments))
        return
    for name in dict(argument.split("=", 1) for argument in arguments).get("shapes", "sft_mixed").split(","):
        measure(name)


if __name__ == "__main__":
    main(sys.argv[1:])
