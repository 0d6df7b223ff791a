"""What the peers have in common. Imported in their environments, so it needs only torch and transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Plan = dict[str, Any]
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def user_text(row: dict[str, Any], family: str, newline: str = "\n") -> str:
    """A prompt with `<image>` where the published chat template of the family has its image."""
    behind = newline if family == "llava_1_5" else ""
    return f"<image>{behind}{row['prompt']}" if row["images"] else str(row["prompt"])


def ordered_rows(plan: Plan) -> list[dict[str, Any]]:
    """Rows in the order of this project's sampler, so that each step has the same rows everywhere; images as paths."""
    file = Path(plan["rows"])
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["images"] = [str(file.parent / row["image"])] if "image" in row else []
    return [rows[i] for i in plan["order"]]


def define_torchvision_operators() -> None:
    """Let torchvision be imported where its compiled operators do not load, as beside a torch for CPUs."""
    import torch

    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")


def run(peer: Any, plan_file: Path, result_file: Path) -> None:
    """Write a peer's rows and configuration, train, and write what it took."""
    define_torchvision_operators()
    from perf.profiled import steps_of
    from perf.steps import noted

    plan, folder = json.loads(plan_file.read_text()), result_file.parent
    steps = steps_of(plan)
    peer.write_rows(plan, ordered_rows(plan), folder)
    told = peer.configuration(plan, folder)
    peer.train(plan, told, steps)
    result_file.write_text(json.dumps(noted(steps) | {"settings": told}))
