"""Kinds of work in the second optimizer step, from torch's profiler.

Also imported in the peers' environments.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch.profiler import ProfilerActivity, profile

from perf.steps import Steps

STEPS = 2


class Profiled(Steps):
    """Times the operations of the second step.

    The output head is recognised by the sizes of its products.
    """

    def __init__(self, head_sizes: Collection[int]) -> None:
        super().__init__()
        self.head_sizes = head_sizes
        self.profile = profile(activities=[ProfilerActivity.CPU], record_shapes=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the profiler at the second step."""
        if state.global_step == STEPS - 1:
            self.profile.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Stop the profiler after that step."""
        super().on_step_end(args, state, control, **more)
        if state.global_step == STEPS:
            self.profile.stop()
            for event in self.profile.key_averages(group_by_input_shape=True):
                kind = kind_of(event.key, event.input_shapes, self.head_sizes)
                self.work[kind] = self.work.get(kind, 0.0) + event.self_cpu_time_total / 1e6


def kind_of(operation: str, shapes: Any, head_sizes: Collection[int]) -> str:
    """The kind of work of an operation, from its name and the sizes of its inputs."""
    is_head = any(size in shape for shape in shapes if isinstance(shape, list) for size in head_sizes)
    is_product = operation in ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::convolution")
    if is_head:
        return "the head's products" if is_product else "the head's softmax"
    if "attention" in operation:
        return "attention"
    return "the layers' products" if is_product else "the rest"


def steps_of(plan: dict[str, Any]) -> Steps:
    """The callback that records a training; with `profiled` (the head's sizes), also kinds of work."""
    return Profiled(plan["profiled"]) if "profiled" in plan else Steps()
