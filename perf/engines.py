"""Seconds of `align eval` with transformers and with vLLM, on a model of real classes and random weights.

    python -m perf.engines python=.venv-vllm/bin/python [rounds=3] [limit=100] [layers=12] [hidden=768]

Whole commands are timed, alternating, each in a process of its own: loading, starting vLLM and its comparison with
transformers are part of it, as for a user. On a CPU this tests the integration; the speed of vLLM is on GPUs.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.files import write_json
from align.models.processors import load_processor
from align.run_folder import git_commit
from perf.generation import machine
from perf.reward_memory import larger_llava

RESULTS = Path(__file__).parent / "results"
SETS = "mini_vsil,mini_vsil_free,mini_benign,mini_twin,mini_ability"


def main(arguments: Sequence[str]) -> None:
    """Measure both engines in turn, print and write the result."""
    given = dict(argument.split("=", 1) for argument in arguments)
    python = given.pop("python", sys.executable)
    sizes = {"rounds": 3, "limit": 100, "layers": 12, "hidden": 768} | {key: int(value) for key, value in given.items()}
    seconds: dict[str, list[float]] = {"transformers": [], "vllm": []}
    with tempfile.TemporaryDirectory() as room:
        model = larger_llava(Path(room, "model"), sizes["layers"], sizes["hidden"])
        load_processor(str(model)).save_pretrained(model)
        for number in range(sizes["rounds"]):
            for engine, found in seconds.items():
                out = Path(room, f"{engine}-{number}")
                found.append(_timed(model, engine, python, out, sizes["limit"]))
                print(f"{engine}: {found[-1]:.1f} s", flush=True)
        settings = json.loads((out / "evaluation" / "mini_vsil" / "settings.json").read_text(encoding="utf-8"))
        alike = _alike(Path(room, "transformers-0"), out)
    ratios = [own / other for own, other in zip(seconds["transformers"], seconds["vllm"], strict=True)]
    result: dict[str, Any] = {"commit": git_commit(), "machine": machine(), **sizes, "seconds": seconds}
    result |= {
        "ratio": round(statistics.median(ratios), 3),
        "low": round(min(ratios), 3),
        "high": round(max(ratios), 3),
    }
    result |= {"identical": alike, "engine": settings["engine"], "agreement": settings["agreement"]}
    write_json(RESULTS / "engines.json", result)
    print(json.dumps(result, indent=2))


def _timed(model: Path, engine: str, python: str, out: Path, limit: int) -> float:
    words = ["eval", f"model={model}", f"benchmark={SETS}", "judge=none", f"limit={limit}", f"output_dir={out}"]
    words += [f"generation.engine={engine}", f"generation.vllm.python={python}", "generation.max_new_tokens=20"]
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "align.cli", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return time.monotonic() - begun


def _alike(one: Path, other: Path) -> str:
    """How many responses of two evaluations are the same."""
    same = total = 0
    for file in (one / "evaluation").glob("*/responses.jsonl"):
        texts = [_texts(file), _texts(other / "evaluation" / file.parent.name / file.name)]
        same += sum(text == texts[1][row] for row, text in texts[0].items())
        total += len(texts[0])
    return f"{same} of {total}"


def _texts(file: Path) -> dict[str, str]:
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {record["id"]: record["response"] for record in records}


if __name__ == "__main__":
    main(sys.argv[1:])
