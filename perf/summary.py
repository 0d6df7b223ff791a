"""The tables of docs/performance.md, of what lies in results/:  python -m perf.summary"""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SHAPES = {
    "dpo_images": "`dpo_images`: 576 image + 50 prompt + 2 x 150 tokens, 2 pairs a step",
    "dpo_images_stored": "the same with `stored_reference=true`, all of it stored",
    "sft_images": "`sft_images`: 576 + 40 + 60 tokens, 4 rows a step",
    "sft_text": "`sft_text`: 20 to 80 + 50 to 300 tokens, 8 rows a step",
    "sft_mixed": "`sft_mixed`: 30% of rows 576 + 50 + 150 tokens, the others 50 + 150, 8 rows a step",
}


def against_trl() -> list[str]:
    """Each shape at the fastest settings of both sides."""
    lines = ["| shape | samples/s, over trl's | rounds | peak memory, over trl's |", "|---|---|---|---|"]
    for name, what in SHAPES.items():
        it = json.loads((RESULTS / f"{name}.json").read_text())
        lines.append(f"| {what} | {it['ratio']} [{it['low']}, {it['high']}] | {it['rounds']} | {it['memory_ratio']} |")
    return lines


MM_SFT_7B = {"PFLOP a step": 4.4, "trained, M": 320}
"""LLaVA-1.5-7B with LoRA, from the table of docs/recipes.md; its gradients are float32 (tests/planning/test_measured.py)."""
PEAK, MFU = 989e12, 0.4
NETWORKS = {8: 300e9, 16: 50e9, 32: 50e9, 64: 50e9}
"""GPUs -> bytes a second and GPU: NVLink within a machine, InfiniBand of 400 Gbit/s between machines."""


def on_paper() -> list[str]:
    """What data parallelism costs where nothing was measured: a ring passes 2 (n - 1) / n of the gradients through each of n GPUs."""
    lines = ["| GPUs | computing a step | passing gradients | share, if nothing overlaps |", "|---|---|---|---|"]
    for gpus, speed in NETWORKS.items():
        computing = MM_SFT_7B["PFLOP a step"] * 1e15 / (gpus * MFU * PEAK)
        passing = 2 * (gpus - 1) / gpus * MM_SFT_7B["trained, M"] * 1e6 * 4 / speed
        lines.append(f"| {gpus} | {computing:.2f} s | {passing * 1e3:.0f} ms | {passing / (computing + passing):.0%} |")
    return lines


if __name__ == "__main__":
    for table in (against_trl, on_paper):
        print("\n".join([*table(), ""]))
