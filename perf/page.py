"""Measure the response times of an `align report` page of ten thousand examples in a browser.

    python perf/page.py

Twenty arms answer five hundred rows. The browser is Chromium (Debian's, driven by playwright: pip
install -e ".[browser]"). Two times are measured: until the page can be used, and from a change of a
filter until the screen shows it. Every round uses a new browser page.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from align.data.images import pixel_hash
from align.evaluation.metrics import wilson
from align.files import write_json
from align.rows import ImageRef
from align.run_folder import RunFolder, versions

ARMS, ROWS, IMAGES = 20, 500, 200
WORDS = (
    "a sentence of the usual length that an answer of a model may have, with some more words in it, number {i}. " * 5
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
CHANGE = """([id, value]) => new Promise((done) => {
  const field = document.getElementById(id), begun = performance.now();
  const seen = () => requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
  const list = new MutationObserver(() => { list.disconnect(); seen(); });
  list.observe(document.getElementById("list"), { childList: true });
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
})"""


def make_runs(folder: Path) -> None:
    """Write arms with responses to the same rows, and the images of these rows."""
    images = []
    for i in range(IMAGES):
        file = folder / "images" / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((640, 480), 40 + i % 60).convert("RGB").save(file)
        images.append({"path": str(file), "inside": None, "pixels": pixel_hash(ImageRef(path=str(file)), "row")})
    for arm in range(ARMS):
        view = "image" if arm % 2 else "text"
        run = RunFolder(folder / "runs" / f"arm-{arm:02}")
        told = {
            "schema": 1,
            "status": "finished",
            "track": "paper",
            "recipe": f"{'mm' if arm % 2 else 't'}_sft",
            "model": "m",
        }
        told |= {"method": "sft", "view": view, "seed": 0, "variant": {"lora.r": arm // 2}, "steps": 9}
        run.record(**told, trainable_parameters=5, seconds=1.0, peak_memory_mib=7)
        _write_set(run.evaluation / "free", arm, images)


def _write_set(folder: Path, arm: int, images: list[dict[str, Any]]) -> None:
    good = [(i * 7 + arm) % 3 > 0 for i in range(ROWS)]
    low, high = wilson(sum(good), ROWS)
    summary: dict[str, Any] = {"schema": 1, "set": "free", "kind": "vsil_free", "n": ROWS, "main": True, "facts": []}
    summary |= {"counts": {"refusal": sum(good), "unsafe": ROWS - sum(good)}, "rate": sum(good) / ROWS, "low": low}
    summary |= {"high": high, "judge": "rule", "judge_version": "1", "invalid_reasons": {}, "cut_at_max_new_tokens": 0}
    write_json(folder / "summary.rule.json", summary | {"bounds": {"low": 0.0, "high": 1.0}, "as_judged": None})
    write_json(folder / "settings.json", {"rows": "0123", "generation": {"max_new_tokens": 20}})
    labels = ["refusal" if of else "unsafe" for of in good]
    lines: dict[str, list[dict[str, Any]]] = {
        "items.rule": [
            {"id": str(i), "label": label, "good": of, "cluster": str(i), "category": f"category {i % 6}"}
            for i, (label, of) in enumerate(zip(labels, good, strict=True))
        ],
        "verdicts.rule": [
            {"id": str(i), "verdict": label, "reason": "it says so", "judge_version": "1", "prompt_hash": None}
            for i, label in enumerate(labels)
        ],
        "responses": [
            {"id": str(i), "response": WORDS.format(i=i), "finish_reason": "stop", "seconds": 0.1} for i in range(ROWS)
        ],
        "rows": [
            {"id": str(i), "role": "harmful", "harm_in": "image", "category": f"category {i % 6}", "columns": {}}
            | {"prompt": f"question {i}", "request": None, "images": [images[i % IMAGES]]}
            for i in range(ROWS)
        ],
    }
    for name, of_file in lines.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in of_file))


def main() -> None:
    """Measure, print, and write the figures to perf/results/."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    found: dict[str, list[float]] = {"usable_ms": [], "category_ms": [], "words_ms": [], "method_ms": []}
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        make_runs(Path(name))
        begun = time.perf_counter()
        command = [sys.executable, "-m", "align.cli", "report", f"runs={name}/runs"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        making, file = time.perf_counter() - begun, Path(name, "runs", "report.html")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for _ in range(given.rounds):
            page = browser.new_page()
            page.goto(file.as_uri())
            found["usable_ms"].append(
                page.evaluate("performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart")
            )
            for what, field, value in (
                ("category", "f-category", "category 3"),
                ("words", "f-words", "number 17"),
                ("method", "f-first", "7"),
            ):
                found[f"{what}_ms"].append(page.evaluate(CHANGE, [field, value]))
            page.close()
        figures: dict[str, Any] = {"schema": 1, "name": "page", "answers": ARMS * ROWS, "images": IMAGES}
        figures |= {"megabytes": round(file.stat().st_size / 1e6, 1), "making_s": round(making, 1)}
    for key, values in found.items():
        figures[key] = {"median": round(statistics.median(values)), "range": [round(min(values)), round(max(values))]}
    print(json.dumps(figures, indent=2))
    figures |= {"rounds": given.rounds, "machine": platform.machine(), "versions": versions()}
    write_json(
        Path(__file__).parent / "results" / "page.json", figures | {"command": shlex.join(["python", *sys.argv])}
    )


if __name__ == "__main__":
    main()
