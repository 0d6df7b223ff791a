"""`align compare`: every arm trained and evaluated, then the tables, the figures and the numbers that answer the question.

Runs that are finished are reused; a killed comparison goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from align.commands.arms import plan
from align.commands.at_once import rows_at_once, run_rows
from align.config import Composed, compose
from align.files import write_json, write_text
from align.report.controlled import Ground, ground_of, refuse_uncontrolled
from align.report.evaluated import Evaluated
from align.report.findings import Findings, findings
from align.report.page.page import ROOM, page
from align.report.tables.everything import tables_of
from align.report.tables.markdown import markdown
from align.report.tables.terminal import print_tables
from align.report.tracking import log_results
from align.run_folder import RunFolder
from align.screen import Named
from align.settings import CompareConfig, EvalConfig

SCHEMA = 1
CAVEAT = (
    "The miniature is a mechanism in a jar: it shows how the comparison works, not how safe any model is for people."
)


def main(arguments: Sequence[str]) -> int:
    """Train, evaluate, print and write everything. Raises UserError."""
    from align.screen import progress, quiet_libraries

    begun = time.monotonic()
    quiet_libraries()
    given = compose(CompareConfig, arguments)
    cells, references = plan(given)
    folder = Path(given.config.output_dir)
    untrained, runs = [], []
    at_once = rows_at_once(given.config, [cell.config for arms in cells.values() for cell in arms])
    with progress() as report:
        for model, arms in cells.items():
            jobs = [partial(_untrained, evaluation) for evaluation in references[model]]
            found_rows = run_rows([*jobs, *(partial(_arm, cell) for cell in arms)], at_once, report)
            untrained += found_rows[: len(jobs)]
            _refuse_uncontrolled_runs(found_rows[len(jobs) :])
            runs += found_rows[len(jobs) :]
    tracks = list(dict.fromkeys(run.manifest()["track"] for run in runs))
    as_they_are = [Evaluated(run) for run in untrained]
    if "paper" not in tracks:  # under which they are recorded
        as_they_are = [run.on_track("controlled") for run in as_they_are if run.row["name"] == "vanilla"]
    found = findings([*as_they_are, *map(Evaluated, runs)])
    rows = sorted((run.row for run in found.runs), key=lambda row: row["method"] is not None)
    values = {"schema": SCHEMA, "seconds": round(time.monotonic() - begun, 1), "rows": rows}
    values |= {"arms": [arm.row for arm in found.arms], "comparisons": found.comparisons, "notes": found.notes}
    write_json(folder / "comparison.json", values)
    miniature = any(cell.config.suite == "miniature" for arms in cells.values() for cell in arms)
    for track in found.tracks:
        _show_track(track, found, folder, [CAVEAT] if miniature else [])
    print("\n".join(found.notes))
    write_text(folder / "report.html", page(found, [], [], ROOM))
    files = ", ".join(f"{track}.{ending}" for track in found.tracks for ending in ("md", "png"))
    print(
        f"Written to {folder}: report.html (open it in a browser), comparison.json, {files}; {time.monotonic() - begun:.0f} s"
    )
    return 0


def _refuse_uncontrolled_runs(runs: Sequence[RunFolder]) -> None:
    """After training, by what the runs of each method and seed recorded. Raises UserError.

    A run that stopped at its method's bound took fewer steps than planned: it is shown, and compared with none.
    """
    groups: dict[tuple[str, int], list[Ground]] = {}
    for run in runs:
        manifest = run.manifest()
        if manifest["track"] == "controlled" and not manifest.get("stopped"):
            groups.setdefault((manifest["method"], manifest["seed"]), []).append(ground_of(run))
    for arms in groups.values():
        refuse_uncontrolled(arms)


def _untrained(evaluation: EvalConfig, report: Any) -> RunFolder:
    """A row without training of ours, evaluated as every arm is."""
    from align.commands.evaluate import run_evaluation

    assert evaluation.model is not None
    return run_evaluation(evaluation, Named(report, f"{evaluation.model.name} {evaluation.name}"))[0]


def _arm(cell: Composed, report: Any) -> RunFolder:
    """One recipe on one model with one seed: trained, then evaluated in this process."""
    from align.commands.evaluate import run_curve, run_evaluation
    from align.methods.callbacks import StepReport
    from align.methods.memory import reset_peak_memory
    from align.train import train

    config = cell.config
    name = f"{config.model.name} {config.recipe} {config.method} seed {config.seed}"
    reset_peak_memory()
    steps = StepReport(lambda done, total: report(f"{name} training", done, total))
    run = train(cell, callbacks=[steps], report=Named(report, name))
    evaluation = EvalConfig(**vars(config.evaluate), run=str(run.path))
    _, results = run_evaluation(evaluation, Named(report, name))
    run_curve(run, results, evaluation, Named(report, name))
    log_results(run)
    return run


def _show_track(track: str, found: Findings, folder: Path, caveats: list[str]) -> None:
    """One track's table, figure, differences and conclusions: on the terminal and as <track>.md and <track>.png."""
    from align.report.figure import draw_comparison

    of_track = found.of_track(track)
    for model in dict.fromkeys(arm.row["model"] for arm in of_track.arms):
        arms = [arm for arm in of_track.arms if arm.row["model"] == model]
        seeds = ", ".join(dict.fromkeys(arm.row["seed"] for arm in arms if arm.row["method"]))
        print(f"\n{track.capitalize()} track, {model}, seed {seeds}")
        print_tables(tables_of(arms, [], ("rates", "divided", "measured")))
    sentences = [*of_track.conclusions, *caveats]
    print("\n".join(sentences) + "\n")
    text = markdown(tables_of(of_track.arms, of_track.comparisons), found.notes, sentences)
    write_text(folder / f"{track}.md", text)
    draw_comparison([arm.row for arm in of_track.arms], folder / f"{track}.png")
