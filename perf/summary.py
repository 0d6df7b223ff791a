"""The tables of docs/performance.md, of what lies in results/:  python -m perf.summary"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
        it = _result(name)
        lines.append(f"| {what} | {it['ratio']} [{it['low']}, {it['high']}] | {it['rounds']} | {it['memory_ratio']} |")
    return lines


def by_rows_of_a_pass() -> list[str]:
    """Seconds of a step of either side as it is cut into passes, one training each: what the search of settings saw."""
    found = _result("best_settings")
    lines = ["| shape | rows of a pass | seconds of a step here | trl | MiB here | trl |", "|---|---|---|---|---|---|"]
    for name in (name for name in SHAPES if name in found):
        ours, theirs = (_cuts(found[name][which]["tried"]) for which in ("align", "trl"))
        for rows in ours:
            seconds, memory = (
                f"{ours[rows][key]} | {theirs[rows][key]}" for key in ("seconds_of_a_step", "peak_memory_mib")
            )
            lines.append(f"| `{name}` | {rows} | {seconds} | {memory} |")
    return lines


def _cuts(tried: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{rows of a pass: what it took}, of the tries that set nothing else."""
    return {one["settings"][0].partition("=")[2]: one for one in tried if len(one["settings"]) == 1}


def by_length() -> list[str]:
    """A step of one row by its tokens."""
    found = _result("scaling")["lengths"]
    lines = ["| tokens of a row | seconds of a step | TFLOP/s | peak MiB |", "|---|---|---|---|"]
    return lines + [
        f"| {length} | {it['seconds']:.2f} | {it['tflops']:.3f} | {it['peak_memory_mib']:.0f} |"
        for length, it in found.items()
    ]


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


def _result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


if __name__ == "__main__":
    for table in (against_trl, by_rows_of_a_pass, by_length, on_paper):
        print("\n".join([*table(), ""]))
