"""`align compare`: every arm trained and evaluated, then the table, the figure and the numbers that answer the question.

Runs that are finished are reused; a killed comparison goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.config import Composed, compose, compose_run, fingerprint, flatten
from align.errors import UserError
from align.evaluation.metrics import paired_difference
from align.files import write_json, write_text
from align.report.collect import good_items, row_of
from align.report.tables import display_name, markdown, percent, print_table
from align.run_folder import RunFolder
from align.settings import CompareConfig, EvalConfig

SCHEMA = 1
CAVEAT = (
    "The miniature is a mechanism in a jar: it shows how the comparison works, not how safe any model is for people."
)


def main(arguments: Sequence[str]) -> int:
    """Train, evaluate, print and write everything. Raises UserError."""
    from align.screen import progress, quiet_libraries

    begun = time.monotonic()
    config: CompareConfig = compose(CompareConfig, arguments).config
    if config.track != ["paper"]:
        raise UserError(f"track={','.join(config.track)}: expected paper")
    cells = [
        [_compose(config, model, recipe, seed) for recipe in config.recipe for seed in config.seed]
        for model in config.model
    ]
    quiet_libraries()
    folder = Path(config.output_dir)
    runs = []
    with progress() as report:
        for arms in cells:
            runs.append(_vanilla(arms[0], folder, report))
            runs += [_arm(cell, report) for cell in arms]
    rows = [row_of(run) for run in runs]
    comparisons = compare_arms(runs)
    _write(folder, rows, comparisons, time.monotonic() - begun)
    for model in dict.fromkeys(row["model"] for row in rows):
        print_table([row for row in rows if row["model"] == model], f"Paper track, {model}")
    for sentence in conclusions(comparisons):
        print(sentence)
    print(
        f"{CAVEAT}\nWritten to {folder}: comparison.json, comparison.md, comparison.png; {time.monotonic() - begun:.0f} s"
    )
    return 0


def _compose(config: CompareConfig, model: str, recipe: str, seed: int) -> Composed:
    overrides = [f"{key}={'null' if value is None else value}" for key, value in flatten(config.override)]
    composed = compose_run([f"recipe={recipe}", f"model={model}", f"seed={seed}", *overrides])
    name = f"{recipe}-seed{seed}-{fingerprint(composed.config)}".replace("/", "-")
    composed.config.output_dir = str(Path(config.output_dir, composed.config.model.name.replace("/", "-"), name))
    return composed


def _vanilla(cell: Composed, folder: Path, report: Any) -> RunFolder:
    """The model as it is, evaluated as every arm is."""
    from align.commands.evaluate import run_evaluation

    settings, model = cell.config.evaluate, cell.config.model
    evaluation = EvalConfig(
        **vars(settings), model=model, output_dir=str(folder / model.name.replace("/", "-") / "vanilla")
    )
    return run_evaluation(evaluation, _named(report, f"{model.name} vanilla"))[0]


def _arm(cell: Composed, report: Any) -> RunFolder:
    """One recipe on one model with one seed: trained, then evaluated in this process."""
    from align.commands.evaluate import run_evaluation
    from align.methods.callbacks import StepReport
    from align.methods.memory import reset_peak_memory
    from align.train import train

    config = cell.config
    name = f"{config.model.name} {config.recipe} seed {config.seed}"
    reset_peak_memory()
    run = train(cell, callbacks=[StepReport(lambda done, total: report(f"{name} training", done, total))])
    return run_evaluation(EvalConfig(**vars(config.evaluate), run=str(run.path)), _named(report, name))[0]


def _named(report: Any, name: str) -> Any:
    return lambda what, done, total: report(f"{name} {what}", done, total)


def compare_arms(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Multimodal minus text-only of the same method, model and seed, on the same items of each set."""
    rows = [(run, row_of(run)) for run in runs]
    found = []
    for text_run, text in rows:
        for image_run, image in rows:
            same = all(text[key] == image[key] for key in ("track", "model", "method", "seed"))
            if not (same and text["method"] and text["view"] == "text" and image["view"] == "image"):
                continue
            for name, result in image["results"].items():
                other = text["results"].get(name)
                if other is None or result["kind"] == "twin" or None in (result["rate"], other["rate"]):
                    continue
                a, b = good_items(image_run, name), good_items(text_run, name)
                items = sorted(a.keys() & b.keys())
                if not items:
                    continue
                identity = {
                    "kind": "difference",
                    "track": text["track"],
                    "model": text["model"],
                    "a": image["name"],
                    "b": text["name"],
                }
                numbers = paired_difference([a[item] for item in items], [b[item] for item in items])
                found.append(identity | {"sets": [name], "seeds": [text["seed"]]} | numbers)
    return found


def conclusions(comparisons: Sequence[dict[str, Any]]) -> list[str]:
    """Each difference as a sentence."""
    return [
        f"{c['model']}, seed {c['seeds'][0]}, {c['sets'][0]}: {display_name(c['a'])} minus {display_name(c['b'])} = "
        f"{percent(c['difference'])} points [{percent(c['low'])}, {percent(c['high'])}], n={c['n']}, p={c['p_value']:.2g}"
        for c in comparisons
    ]


def _write(folder: Path, rows: list[dict[str, Any]], comparisons: list[dict[str, Any]], seconds: float) -> None:
    from align.report.figure import draw_comparison

    values = {"schema": SCHEMA, "seconds": round(seconds, 1), "rows": rows, "comparisons": comparisons}
    write_json(folder / "comparison.json", values)
    text = markdown(rows) + "\n" + "".join(f"- {sentence}\n" for sentence in conclusions(comparisons)) + f"\n{CAVEAT}\n"
    write_text(folder / "comparison.md", text)
    draw_comparison(rows, folder / "comparison.png")
