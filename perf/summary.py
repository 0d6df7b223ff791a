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


def _result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


if __name__ == "__main__":
    for table in (against_trl, by_rows_of_a_pass, by_length):
        print("\n".join([*table(), ""]))
