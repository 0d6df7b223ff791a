"""`align compare`: train and evaluate every arm, then write tables, figures and comparisons.

Finished runs are reused; a killed comparison resumes where it stopped.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

from rich.console import Console

from align.commands.arms import Cells, is_miniature, plan
from align.commands.at_once import rows_at_once, run_rows, warm_up
from align.commands.board import RowDisplay, Tell, board
from align.config.compose import compose
from align.config.merge import Composed
from align.files import write_json, write_text
from align.report.answer import answer
from align.report.controlled import Ground, ground_of, refuse_uncontrolled
from align.report.findings import Findings, findings
from align.report.names import display_name
from align.report.page.page import ROOM, page
from align.report.reward_models import accuracy_line, reward_models_of
from align.report.run_results import Evaluated
from align.report.tables.all_tables import PARTS, tables_of
from align.report.tables.brief import print_brief
from align.report.tables.markdown import markdown
from align.run_folder import RunFolder
from align.settings import CompareConfig, EvalConfig
from align.tools.publish.wandb_log import log_results

SCHEMA = 1
CAVEAT = "The miniature is a toy model: it shows how the comparison works, not how safe any model is for people."
NOTES_SHOWN = 3
ONE_ROW = 200 * 32
"""Unit of work: training 200 steps of 32 rows."""
UNTRAINED = 0.3
"""Work of a row without training."""


def main(arguments: Sequence[str]) -> int:
    """Train, evaluate, print and write everything. Raises UserError."""
    from align.console import quiet_libraries

    begun = time.monotonic()
    given = compose(CompareConfig, arguments)
    if given.config.at_once != 1:
        warm_up()
    quiet_libraries()
    cells, references = plan(given)
    folder = Path(given.config.output_dir)
    at_once = rows_at_once(given.config, [cell.config for arms in cells.values() for cell in arms])
    untrained, runs = _train_and_evaluate(cells, references, at_once, folder)
    tracks = list(dict.fromkeys(run.manifest()["track"] for run in runs))
    as_they_are = [Evaluated(run) for run in untrained]
    if "paper" not in tracks:  # rows without training are recorded under the paper track
        as_they_are = [run.on_track("controlled") for run in as_they_are if run.row["name"] == "vanilla"]
    found = findings([*as_they_are, *map(Evaluated, runs), *reward_models_of(runs)])
    rows = sorted((run.row for run in found.runs), key=lambda row: row["method"] is not None)
    values = {"schema": SCHEMA, "seconds": round(time.monotonic() - begun, 1), "rows": rows}
    values |= {"arms": [arm.row for arm in found.arms], "comparisons": found.comparisons, "notes": found.notes}
    values["reward_models"] = [run.row | {"held_out": run.manifest.get("held_out")} for run in found.reward_models]
    write_json(folder / "comparison.json", values)
    miniature = any(is_miniature(cell.config) for arms in cells.values() for cell in arms)
    caveats = [CAVEAT] if miniature else []
    for track in found.tracks:
        _write_track(track, found, folder, caveats)
    write_text(folder / "report.html", page(found, [], [], ROOM))
    print(f"\nDone in {time.monotonic() - begun:.0f} s")
    _show(found, caveats, folder)
    return 0


def _train_and_evaluate(
    cells: Cells, references: dict[str, list[EvalConfig]], at_once: int, folder: Path
) -> tuple[list[RunFolder], list[RunFolder]]:
    """-> (runs without training, trained runs) of every model. Raises UserError."""
    log = folder / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    several = len(cells) > 1
    rows = {
        model: [(_label_of(one, several), UNTRAINED, partial(_untrained, one)) for one in references[model]]
        + [(_label(cell, several), _work(cell), partial(_arm, cell)) for cell in arms]
        for model, arms in cells.items()
    }
    labels = [label for of_model in rows.values() for label, *_ in of_model]
    work = [work for of_model in rows.values() for _, work, _ in of_model]
    print(f"{len(labels)} rows (models and trained arms), {at_once} at a time", flush=True)
    untrained: list[RunFolder] = []
    runs: list[RunFolder] = []
    with board(labels, work) as shown:
        for model, of_model in rows.items():
            begin = len(untrained) + len(runs)
            jobs = {begin + i: partial(_logged, job, log, label) for i, (label, _, job) in enumerate(of_model)}
            found = run_rows(jobs, at_once, shown)
            untrained += found[: len(references[model])]
            _refuse_uncontrolled_runs(found[len(references[model]) :])
            runs += found[len(references[model]) :]
    return untrained, runs


def _label_of(evaluation: EvalConfig, several: bool) -> str:
    assert evaluation.model is not None
    name = display_name(str(evaluation.name))
    return f"{evaluation.model.name} {name}" if several else name


def _label(cell: Composed, several: bool) -> str:
    """A row's label on the screen: its name in tables, with model, method and seed."""
    config = cell.config
    name = display_name(Path(config.recipe).stem)
    parts = [config.model.name] if several else []
    return " ".join(
        [*parts, name, *([f"{config.method}"] if config.track == "controlled" else []), f"seed {config.seed}"]
    )


def _work(cell: Composed) -> float:
    """Approximate work of a trained row; methods other than SFT process two responses a prompt."""
    config = cell.config
    steps = config.train.get("max_steps") or 0
    responses = 1 if config.method == "sft" else 2
    return responses * (steps * config.global_batch_size / ONE_ROW if steps > 0 else 1.0)


def _logged(job: Callable[[Tell], RunFolder], log: Path, label: str, tell: Tell) -> RunFolder:
    """Run a row and write its printed lines to the log: several rows print at the same time."""
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            return job(tell)
    finally:
        if said.getvalue():
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{label}\n{said.getvalue()}\n")


def _refuse_uncontrolled_runs(runs: Sequence[RunFolder]) -> None:
    """Check after training that the runs of each method and seed are comparable. Raises UserError.

    A run that stopped at its method's bound took fewer steps than planned: it is shown, but it is
    not compared.
    """
    groups: dict[tuple[str, int], list[Ground]] = {}
    for run in runs:
        manifest = run.manifest()
        if manifest["track"] == "controlled" and not manifest.get("stopped"):
            groups.setdefault((manifest["method"], manifest["seed"]), []).append(ground_of(run))
    for arms in groups.values():
        refuse_uncontrolled(arms)


def _untrained(evaluation: EvalConfig, tell: Tell) -> RunFolder:
    """Evaluate a row without training, with the same settings as every arm."""
    from align.commands.evaluate import run_evaluation

    return run_evaluation(evaluation, RowDisplay(tell, False, len(evaluation.benchmark)))[0]


def _arm(cell: Composed, tell: Tell) -> RunFolder:
    """Train and evaluate one recipe on one model with one seed, in this process."""
    from align.commands.evaluate import run_curve, run_evaluation
    from align.training.callbacks import StepReport
    from align.training.memory import reset_peak_memory
    from align.training.run import train

    config = cell.config
    display = RowDisplay(tell, True, len(config.evaluate.benchmark))
    reset_peak_memory()
    run = train(cell, callbacks=[StepReport(display.step)], report=display.preparing)
    evaluation = EvalConfig(**vars(config.evaluate), run=str(run.path))
    _, results = run_evaluation(evaluation, display)
    run_curve(run, results, evaluation, display)
    log_results(run)
    return run


def _write_track(track: str, found: Findings, folder: Path, caveats: Sequence[str]) -> None:
    """Write one track's tables, comparisons, conclusions and figure: <track>.md and <track>.png."""
    from align.report.figure import draw_comparison

    of_track = found.of_track(track)
    sentences = [*of_track.conclusions, *caveats]
    tables = tables_of(of_track.arms, of_track.comparisons, PARTS, found.reward_models)
    text = markdown(tables, found.notes, sentences)
    write_text(folder / f"{track}.md", text)
    draw_comparison([arm.row for arm in of_track.arms], folder / f"{track}.png")


def _show(found: Findings, caveats: Sequence[str], folder: Path) -> None:
    """Print one small table, the answer, and the paths of the other files."""
    console = Console()
    console.print()
    print_brief(found.arms, console)
    models = [accuracy_line(run) for run in found.reward_models]
    notes = [note for note in found.notes if note not in models]
    left = [f"{more} more notes: see the page" for more in [len(notes) - NOTES_SHOWN] if more > 0]
    for line in [answer(found), *caveats, *models, *notes[:NOTES_SHOWN], *left]:
        console.print(f"\n{line}", markup=False, highlight=False)
    tables = ", ".join(f"{track}.md, {track}.png" for track in found.tracks)
    console.print(f"\nMore in {folder}: {tables}, comparison.json, log.txt", markup=False, highlight=False)
    console.print(f"Open in a browser: {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
