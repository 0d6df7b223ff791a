"""Print the tables of docs/performance.md from the files in results/:  python -m perf.summary"""

from __future__ import annotations

import json
import statistics
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
    """Each shape with the fastest settings of both sides."""
    lines = ["| shape | samples/s, over trl's | rounds | peak memory, over trl's |", "|---|---|---|---|"]
    for name, what in SHAPES.items():
        it = json.loads((RESULTS / f"{name}.json").read_text())
        lines.append(f"| {what} | {it['ratio']} [{it['low']}, {it['high']}] | {it['rounds']} | {it['memory_ratio']} |")
    return lines


REAL_VOCABULARY = {
    "qwen2_vl_sft_mixed": "`qwen2_vl_sft_mixed`: 30% of rows 144 image + 50 + 150 tokens, the others 50 + 150, 8 rows a step",
    "qwen2_vl_sft_mixed_default_allocator": "the same with `steps=2 rounds=2 allocator=default`, on a busier machine",
}


def real_vocabulary() -> list[str]:
    """Shapes of a small Qwen2-VL with the published vocabulary.

    The intervals of a single round are unknown.
    """
    lines = [
        "| shape | samples/s, over trl's | processor seconds, trl's over ours | rounds | peak memory, over trl's |",
        "|---|---|---|---|---|",
    ]
    for name, what in REAL_VOCABULARY.items():
        it = json.loads((RESULTS / f"{name}.json").read_text())
        ratios = [(it["ratio"], it["low"], it["high"]), it["ratio_of_cpu_seconds"]]
        cells = " | ".join(_interval(*ratio, it["rounds"]) for ratio in ratios)
        lines.append(f"| {what} | {cells} | {it['rounds']} | {it['memory_ratio']} |")
    return lines


def _interval(ratio: float, low: float, high: float, rounds: int) -> str:
    return f"{ratio} [{low}, {high}]" if rounds > 1 else f"{ratio}"


PEERS = {"ms-swift": "ms-swift", "llama-factory": "LLaMA-Factory"}
AGAINST_PEERS = {
    "qwen2_vl_sft_mixed": "Qwen2-VL SFT, 30% of rows with an image",
    "qwen2_vl_dpo_images": "Qwen2-VL DPO, an image in every pair",
    "llava_1_5_sft_mixed": "LLaVA-1.5 SFT, 30% of rows with an image",
    "llava_1_5_dpo_images": "LLaVA-1.5 DPO, an image in every pair, 2 pairs a step",
}


def against_peers() -> list[str]:
    """Each shape relative to each peer; seconds and memory are medians."""
    lines = [
        "| shape | over | samples per processor second | rounds | peak memory | processor seconds a step, ours / "
        "peer's | "
        "until the first step is done, ours / peer's | first loss, ours / peer's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, what in AGAINST_PEERS.items():
        it = json.loads((RESULTS / f"peers_{name}.json").read_text())
        for peer, over in it["over"].items():
            both = [it["sides"][which] for which in ("align", peer)]
            step = " / ".join(f"{of['cpu_seconds_of_a_step']:.1f}" for of in both)
            start = " / ".join(f"{statistics.median(of['cpu_seconds_to_first_step']):.0f}" for of in both)
            loss = " / ".join(f"{of['losses'][0]:.5f}" for of in both)
            ratio = _interval(over["ratio"], over["low"], over["high"], it["rounds"])
            lines.append(
                f"| {what} | {PEERS[peer]} | {ratio} | {it['rounds']} | {over['memory_ratio']} | {step} | {start} | "
                f"{loss} |"
            )
    return lines


KINDS_OF_WORK = ("the layers' products", "the head's products", "the head's softmax", "attention", "the rest")


def where_peers() -> list[str]:
    """Seconds of a step by kind of work, for us and the peers."""
    lines = [f"| shape | side | {' | '.join(KINDS_OF_WORK)} |", "|---|---|---|---|---|---|---|"]
    for name, what in AGAINST_PEERS.items():
        file = RESULTS / f"where_peers_{name}.json"
        found = json.loads(file.read_text())["seconds"] if file.is_file() else {}
        for which, seconds in found.items():
            cells = " | ".join(f"{seconds[kind]:.1f}" for kind in KINDS_OF_WORK)
            lines.append(f"| {what} | {PEERS.get(which, 'this project')} | {cells} |")
    return lines


def head() -> list[str]:
    """The output head alone."""
    it = json.loads((RESULTS / "head.json").read_text())
    lines = [
        "| hidden size | head | processor seconds (median) | over ours | rounds | memory, MiB | gradient error |",
        "|---|---|---|---|---|---|---|",
    ]
    for width, ways in it["widths"].items():
        for way, of in ways.items():
            over = "1" if way == "ours" else _interval(*of["ratio"], it["rounds"])
            lines.append(
                f"| {width} | {way} | {statistics.median(of['seconds']):.2f} | {over} | {it['rounds']} | "
                f"{of['mib']:.0f} | "
                f"{of['gradient_error']:.1e} |"
            )
    return lines


MM_SFT_7B = {"PFLOP a step": 4.4, "trained, M": 320}
"""LLaVA-1.5-7B with LoRA, from the table of docs/recipes.md; its gradients are float32
(tests/planning/test_measured.py)."""
PEAK, MFU = 989e12, 0.4
NETWORKS = {8: 300e9, 16: 50e9, 32: 50e9, 64: 50e9}
"""GPUs -> bytes per second per GPU: NVLink within a machine, InfiniBand of 400 Gbit/s between
machines."""


def on_paper() -> list[str]:
    """The estimated, not measured, cost of data parallelism.

    A ring sends 2 (n - 1) / n of the gradients through each of n GPUs.
    """
    lines = ["| GPUs | computing a step | passing gradients | share, if nothing overlaps |", "|---|---|---|---|"]
    for gpus, speed in NETWORKS.items():
        computing = MM_SFT_7B["PFLOP a step"] * 1e15 / (gpus * MFU * PEAK)
        passing = 2 * (gpus - 1) / gpus * MM_SFT_7B["trained, M"] * 1e6 * 4 / speed
        lines.append(f"| {gpus} | {computing:.2f} s | {passing * 1e3:.0f} ms | {passing / (computing + passing):.0%} |")
    return lines


KINDS = ("row with an image", "row without", "pair with an image", "row checked")
RECIPES = ("mm_sft", "mm_dpo", "mm_unlearning", "mm_safe_unlearning")
RENDERED_AS = {"mm_dpo": "pair with an image"}
"""The rendering of a recipe's rows, where it is not a row with an image."""


def rendering() -> list[str]:
    """Milliseconds per row on the plain path and on the fast path."""
    found = json.loads((RESULTS / "rendering.json").read_text())["measured"]
    lines = ["| | plain, ms | fast, ms | plain / fast | rounds |", "|---|---|---|---|---|"]
    for family, of in found.items():
        for kind in KINDS:
            it = of[kind]
            ratio = f"{it['ratio']} [{it['low']}, {it['high']}]"
            lines.append(f"| {family}: {kind} | {it['plain, ms']} | {it['fast, ms']} | {ratio} | {it['rounds']} |")
    return lines


def data_on_paper() -> list[str]:
    """Share of a worker's time that rendering takes on 8 H100.

    From `align plan` and the milliseconds of results/rendering.json.
    """
    from align.config.compose import compose_run
    from align.planning.estimate import estimate
    from align.settings import PlanSettings

    found = json.loads((RESULTS / "rendering.json").read_text())["measured"]
    lines = [
        "| model | recipe | seconds a step | rows/s of a process | ms a row | of a worker |",
        "|---|---|---|---|---|---|",
    ]
    for family in found:
        for recipe in RECIPES:
            it = estimate(compose_run([f"recipe={recipe}", f"model={family}_7b"]), PlanSettings(gpus=[8]))
            seconds = it.launched[0].hours["H100"] * 3600 / it.steps
            rows, ms = it.step.rows / seconds / 8, found[family][RENDERED_AS.get(recipe, KINDS[0])]["fast, ms"]
            lines.append(
                f"| {family}_7b | `{recipe}` | {seconds:.2f} | {rows:.1f} | {ms:.1f} | {rows * ms / 1e3:.0%} |"
            )
    return lines


if __name__ == "__main__":
    for table in (head, against_trl, real_vocabulary, against_peers, where_peers, on_paper, rendering, data_on_paper):
        print("\n".join([*table(), ""]))
