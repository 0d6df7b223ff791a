"""What is to be run for a grid, stage by stage: each a command of `align` with its arguments, and whether its results are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from align.catalog import DEFENCES, resolve
from align.config import flatten
from align.data.views import split_view
from align.errors import UserError
from align.evaluation.external.measuring import SUMMARY, folder_of
from align.evaluation.judging import NONE
from align.evaluation.selection import set_names, settings_of
from align.report.collect import main_summary
from align.run_folder import RunFolder
from align.settings import Evaluate
from align.sweep.cells import Cell
from align.sweep.events import last_attempt
from align.sweep.grid import Grid, text_of

TRAIN, VALIDATE, EVALUATE = STAGES = ("train", "validate", "evaluate")
VERBS = {TRAIN: "train", VALIDATE: "eval", EVALUATE: "eval"}
VANILLA = "vanilla"
WITHHELD = "withheld, too many invalid verdicts"
OF_TRAINING = ("evaluate.every_steps", "evaluate.data_root")
"""Settings of an evaluation that `align eval` takes from the run."""


@dataclass(frozen=True)
class Task:
    """One command for one folder."""

    stage: str
    path: Path
    arguments: tuple[str, ...]
    evaluation: Path | None = None
    """Where its results are, and which."""
    sets: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    """Those that were asked for by name; none of them: the set's own. `none`: there are answers alone."""
    measured: tuple[str, ...] = ()
    """Tasks of lmms_eval."""

    @property
    def verb(self) -> str:
        """Of `align`."""
        return VERBS[self.stage]

    @property
    def judged(self) -> bool:
        """Whether there are to be verdicts."""
        return self.judges != (NONE,)

    def lacking(self) -> list[str]:
        """What of its results is absent or withheld, each a few words; empty where all is there. Raises UserError for a damaged folder."""
        if self.evaluation is None:
            return [] if RunFolder(self.path).finished() else ["not trained"]
        lines = [line for name in self.sets if (line := self._lacking(name))]
        absent = [task for task in self.measured if not (folder_of(self.evaluation, task) / SUMMARY).is_file()]
        return lines + [f"lmms_eval {task}: not measured" for task in absent]

    def _lacking(self, name: str) -> str | None:
        assert self.evaluation is not None
        folder = self.evaluation / name
        if not self.judged:
            attempt = last_attempt(self.path, self.stage)
            # Answers are written as they come: those of an evaluation that did not end well may not be all.
            there = (folder / "responses.jsonl").is_file() and (attempt is None or attempt.status == 0)
            return None if there else f"{name}: not answered"
        main = main_summary(folder)
        if main is None:
            return f"{name}: not evaluated"
        absent = [
            judge for judge in self.judges if ":" not in judge and not (folder / f"summary.{judge}.json").is_file()
        ]
        if absent:
            return f"{name}: not judged by {', '.join(absent)}"
        return f"{name}: {WITHHELD}" if main["rate"] is None else None


@dataclass(frozen=True)
class Row:
    """A row of the grid: a run, or a model without training of ours."""

    path: Path
    axes: dict[str, str]
    tasks: tuple[Task, ...]
    """In the order of their stages; one begins when the one before it has ended well."""
    chosen: bool = False
    """Whether it is the run whose settings are chosen once all are validated: a link to it."""

    @property
    def name(self) -> str:
        """As messages call it."""
        return f"{self.path.parent.name}/{self.path.name}"


def rows_of(grid: Grid, cells: Sequence[Cell]) -> list[Row]:
    """Every run with its tasks, then what runs are seen beside. Raises UserError."""
    validation = tuple(set_names(grid.config.validate))
    if grid.config.tune:
        for cell in {cell.axes["recipe"]: cell for cell in cells}.values():
            _refuse_same_sets(grid, cell)
    rows = []
    for cell in cells:
        tasks = [Task(TRAIN, cell.path, cell.arguments)]
        if grid.config.tune:
            folder = RunFolder(cell.path).validation.evaluation
            arguments = (f"run={cell.path}", "validation=true", *_typed(grid), *grid.validate)
            tasks.append(
                Task(VALIDATE, cell.path, arguments, folder, validation, tuple(grid.config.validate.judge.name))
            )
        elif _evaluated(cell):
            arguments = (f"run={cell.path}", *_typed(grid))
            tasks.append(Task(EVALUATE, cell.path, arguments, RunFolder(cell.path).evaluation, **_asked(cell)))
        rows.append(Row(cell.path, cell.axes, tuple(tasks)))
    return rows + _chosen(grid, cells) + _beside(grid, cells)


def chosen_path(output_dir: str | Path, axes: dict[str, str], tune: Sequence[str]) -> Path:
    """Where the chosen run of a cell and seed will be found: a link, since only validation tells which run that is."""
    kept = [f"seed{value}" if key == "seed" else value for key, value in axes.items() if key not in tune]
    return Path(output_dir, "sweep", "chosen", "-".join(kept).replace("/", "-"))


def _chosen(grid: Grid, cells: Sequence[Cell]) -> list[Row]:
    """Of settings that are tuned only the chosen ones are evaluated on what is reported: a row for each cell and seed."""
    tune = grid.config.tune
    rows: dict[Path, Row] = {}
    for cell in cells if tune else ():
        path = chosen_path(grid.config.output_dir, cell.axes, tune)
        task = Task(EVALUATE, path, (f"run={path}", *_typed(grid)), RunFolder(path).evaluation, **_asked(cell))
        axes = {key: value for key, value in cell.axes.items() if key not in tune}
        rows.setdefault(path, Row(path, axes, (task,) if _evaluated(cell) else (), chosen=True))
    return list(rows.values())


def _typed(grid: Grid) -> list[str]:
    """What the sweep says of evaluations, as `align eval` takes it; the rest is in the run's own configuration."""
    given = [setting for setting in grid.settings if not setting.startswith(OF_TRAINING)]
    return [setting.removeprefix("evaluate.") for setting in given if setting.startswith("evaluate.")]


def _beside(grid: Grid, cells: Sequence[Cell]) -> list[Row]:
    """Each model as it is, and behind the prompts that were asked for."""
    models: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        if _evaluated(cell):
            models.setdefault(tuple(value for key, value in cell.axes.items() if _of_model(key)), cell)
    names: dict[str, list[str]] = {VANILLA: []} if grid.config.vanilla else {}
    for defence in grid.config.defence:
        resolve("defence", defence, DEFENCES)
        names[defence.rpartition(":")[2]] = [f"defence={defence}"]
    return [_reference(grid, cell, name, more) for cell in models.values() for name, more in names.items()]


def _of_model(key: str) -> bool:
    return key.split(".")[0] == "model"


def _reference(grid: Grid, cell: Cell, name: str, more: list[str]) -> Row:
    axes = {key: value for key, value in cell.axes.items() if _of_model(key)}
    # Beside the model itself an axis may be a setting of it: each value is another model as it is.
    path = cell.path.parent / "-".join([name, *(value for key, value in axes.items() if key != "model")]).replace(
        "/", "-"
    )
    model = [f"{key}={value}" for key, value in axes.items()] + [
        it for it in grid.settings if _of_model(it.split("=")[0])
    ]
    arguments = (*model, f"name={name}", f"output_dir={path}", *more, *_settings_of(cell))
    task = Task(EVALUATE, path, arguments, RunFolder(path).evaluation, **_asked(cell))
    return Row(path, axes | {"name": name}, (task,))


def _asked(cell: Cell) -> dict[str, tuple[str, ...]]:
    """What an evaluation is asked for beside the sets' own judges."""
    evaluate = cell.values["evaluate"]
    return {
        "sets": cell.sets,
        "judges": tuple(evaluate["judge"]["name"]),
        "measured": tuple(evaluate["lmms_eval"]["tasks"]),
    }


def _evaluated(cell: Cell) -> bool:
    return bool(cell.sets or cell.values["evaluate"]["lmms_eval"]["tasks"])


def _settings_of(cell: Cell) -> list[str]:
    """How a run is evaluated, in full: a model as it is has no configuration to look it up in."""
    defaults = dict(flatten(asdict(Evaluate())))
    return [
        f"{'judge' if key == 'judge.name' else key}={text_of(value)}"
        for key, value in flatten(cell.values["evaluate"])
        if key != "every_steps" and value not in (defaults.get(key), None, [], {})
    ]


def _refuse_same_sets(grid: Grid, cell: Cell) -> None:
    """What is reported must not be what the choice was made by: the same rows of the same set, whatever the view."""
    reported, chosen_by = cell.composed().config.evaluate, grid.config.validate
    both = {split_view(name)[0] for name in reported.benchmark} & {split_view(name)[0] for name in chosen_by.benchmark}
    for name in sorted(both):
        of = [settings_of(config, name) for config in (reported, chosen_by)]
        if all(getattr(of[0], key) == getattr(of[1], key) for key in ("path", "revision", "subset", "where")):
            raise UserError(
                f"validate.benchmark={name}: settings would be chosen by the rows that are reported; give "
                f"validate.settings.{name}.subset=validation (or where=, path=), or other sets than evaluate.benchmark"
            )
