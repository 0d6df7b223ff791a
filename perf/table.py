"""Measure the time of `align table` for a thousand run folders, without the import of its modules.

    python perf/table.py

Every round has two processes: one makes the table, and one only imports the same modules. The
folders are synthetic and have the miniature's sizes: five benchmarks of 200 items, pairs of arms of
three recipes on several models, with many seeds and settings.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from align.evaluation.metrics import wilson
from align.files import write_json
from align.run_folder import RunFolder, versions

SETS = {"a_vsil": "vsil", "a_vsil_free": "vsil_free", "a_benign": "benign", "a_twin": "twin", "a_ability": "ability"}
ITEMS = 200
RECIPES = ("t_sft", "mm_sft", "t_dpo", "mm_dpo", "t_safe_unlearning", "mm_safe_unlearning")
MODELS = ("one", "two")
IMPORTS = "import align.commands.table, align.cli"


def make_runs(folder: Path, count: int) -> None:
    """Write run folders as training and evaluation do, without weights."""
    draw = random.Random(0)
    for number in range(count):
        recipe, model = RECIPES[number % len(RECIPES)], MODELS[number // len(RECIPES) % len(MODELS)]
        rest = number // (len(RECIPES) * len(MODELS))
        run = RunFolder(folder / f"run-{number:04}")
        view = "image" if recipe.startswith("mm") else "text"
        run.record(
            schema=1,
            status="finished",
            track="paper",
            recipe=recipe,
            model=model,
            method=recipe.partition("_")[2],
            view=view,
            seed=rest % 3,
            variant={"train.learning_rate": rest // 3},
            tuning="LoRA r 16",
            steps=300,
            trainable_parameters=5,
            seconds=1.0,
            peak_memory_mib=7,
        )
        for name, kind in SETS.items():
            _write_set(run.evaluation / name, name, kind, draw)


def _write_set(folder: Path, name: str, kind: str, draw: random.Random) -> None:
    right, wrong = ("refusal", "unsafe") if kind.startswith("vsil") else ("correct", "wrong")
    good = [draw.random() < 0.7 for _ in range(ITEMS)]
    low, high = wilson(sum(good), ITEMS)
    summary: dict[str, Any] = {"schema": 1, "set": name, "kind": kind, "n": ITEMS, "main": True, "facts": []}
    summary |= {"counts": {right: sum(good), wrong: ITEMS - sum(good), "incoherent": 0, "invalid": 0}}
    summary |= {"rate": sum(good) / ITEMS, "low": low, "high": high, "judge": "rule", "judge_version": "1"}
    summary |= {"bounds": {"low": sum(good) / ITEMS, "high": sum(good) / ITEMS}, "as_judged": None}
    summary |= {"invalid_reasons": {}, "cut_at_max_new_tokens": 0}
    write_json(folder / "summary.rule.json", summary)
    write_json(folder / "settings.json", {"rows": "0123", "generation": {"max_new_tokens": 20}})
    items = [
        {
            "id": f"{name}/{i}",
            "label": right if of else wrong,
            "good": of,
            "cluster": f"{i:016x}",
            "category": str(i % 4),
        }
        | {"asks": f"{i:016x}", "shows": f"{i:016x}"}
        for i, of in enumerate(good)
    ]
    (folder / "items.rule.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


def seconds(command: list[str]) -> float:
    """Wall-clock time of a process."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    """Measure, print, and write the figures to perf/results/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    figures: dict[str, Any] = {
        "schema": 1,
        "name": "table",
        "runs": given.runs,
        "items": ITEMS * len(SETS),
        "formats": {},
    }
    with tempfile.TemporaryDirectory() as name:
        make_runs(Path(name, "runs"), given.runs)
        for form in ("md", "json", "latex", "csv"):
            table = [
                sys.executable,
                "-m",
                "align.cli",
                "table",
                f"runs={name}/runs",
                f"format={form}",
                f"output={name}/table",
            ]
            pairs = [(seconds(table), seconds([sys.executable, "-c", IMPORTS])) for _ in range(given.rounds)]
            beyond = sorted(whole - imports for whole, imports in pairs)
            figures["formats"][form] = {
                "beyond_imports_s": round(statistics.median(beyond), 2),
                "range_s": [round(beyond[0], 2), round(beyond[-1], 2)],
                "imports_s": round(statistics.median(imports for _, imports in pairs), 2),
                "bytes": Path(name, "table").stat().st_size,
            }
            print(form, figures["formats"][form], flush=True)
    figures |= {"rounds": given.rounds, "command": shlex.join(["python", *sys.argv]), "versions": versions()}
    write_json(Path(__file__).parent / "results" / "table.json", figures)


if __name__ == "__main__":
    main()
