"""The rows of a grid: its runs, the chosen runs, and base models for comparison."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from align.config.compose import compose_run
from align.config.registry import JUDGES, REWARD_MODEL, resolve
from align.config.values import flatten
from align.errors import UserError
from align.evaluation.defended import defence_of, refuse_unread, short_name
from align.evaluation.judges.build import NONE
from align.evaluation.selection import narrowing, set_name, set_names, typed_settings
from align.rows import split_view
from align.run_folder import RunFolder
from align.settings import Answering, BenchmarkSettings, Evaluate
from align.sweep.cells import Cell, without_launch
from align.sweep.grid import Grid, text_of
from align.sweep.tasks import EVALUATE, TRAIN, VALIDATE, Row, Task

VANILLA = "vanilla"
LONGEST = 100
"""Most characters of a name that is made from values of axes."""
PLACES = ("path", "revision", "subset", "where")
"""Settings that give two evaluations different rows of a benchmark; `limit` does not."""


def rows_of(grid: Grid, cells: Sequence[Cell]) -> list[Row]:
    """Every run with its tasks, then base models and defences. Raises UserError."""
    return _Rows(grid, cells).all


def chosen_path(output_dir: str | Path, axes: dict[str, str], tune: Sequence[str]) -> Path:
    """Path of the link to the chosen run of a cell and seed; validation decides its target."""
    kept = [f"seed{value}" if key == "seed" else value for key, value in axes.items() if key not in tune]
    return Path(output_dir, "sweep", "chosen", _short("-".join(kept)))


class _Rows:
    def __init__(self, grid: Grid, cells: Sequence[Cell]):
        self._grid, self._cells = grid, cells
        self._evaluations: dict[str, Evaluate] = {}
        self._validations: dict[str, dict[str, Any]] = {}
        self._asked: dict[str, dict[str, Any]] = {}

    @cached_property
    def all(self) -> list[Row]:
        """All rows. Raises UserError if two have the same folder."""
        _refuse_reward_models_twice(self._cells)
        rows = [self._run(cell) for cell in self._cells]
        rows += self._chosen() if self._grid.config.tune else []
        rows += self._beside()
        taken: dict[Path, Row] = {}
        for row in rows:
            if row.path in taken:
                raise UserError(
                    f"{_axes(taken[row.path].axes)} and {_axes(row.axes)} would have the same folder {row.path}. Give "
                    "one of the models or recipes another name."
                )
            taken[row.path] = row
        return rows

    def _run(self, cell: Cell) -> Row:
        tasks = [Task(TRAIN, cell.path, cell.arguments)]
        if self._grid.config.tune:
            if cell.values["method"] == REWARD_MODEL:
                raise UserError(
                    f"recipe={cell.values['recipe']}: a reward model writes no responses, so tune= cannot choose its "
                    "settings. Remove tune=, and compare the accuracies of the table."
                )
            asked = self._validation(cell)
            folder = RunFolder(cell.path).validation.evaluation
            tasks.append(_task(VALIDATE, cell.path, folder, [f"run={cell.path}", "validation=true"], asked))
        elif asked := self._evaluation(cell):
            tasks.append(_task(EVALUATE, cell.path, RunFolder(cell.path).evaluation, [f"run={cell.path}"], asked))
        return Row(cell.path, cell.axes, tuple(tasks))

    def _chosen(self) -> list[Row]:
        """A row for each cell and seed: only chosen settings are evaluated and reported."""
        tune = self._grid.config.tune
        rows: dict[tuple[str, ...], Row] = {}
        for cell in self._cells:
            axes = {key: value for key, value in cell.axes.items() if key not in tune}
            path, asked = chosen_path(self._grid.config.output_dir, cell.axes, tune), self._evaluation(cell)
            if asked:
                task = _task(EVALUATE, path, RunFolder(path).evaluation, [f"run={path}"], asked)
                rows.setdefault(tuple(axes.values()), Row(path, axes, (task,), chosen=True))
        return list(rows.values())

    def _beside(self) -> list[Row]:
        """Each base model, also with each defence, evaluated on all benchmarks of its runs."""
        models: dict[tuple[str, ...], list[Cell]] = {}
        for cell in self._cells:
            if self._evaluation(cell):
                models.setdefault(tuple(value for key, value in cell.axes.items() if _of_model(key)), []).append(cell)
        names: dict[str, list[str]] = {VANILLA: []} if self._grid.config.vanilla else {}
        settings = self._grid.config.defence_settings
        refuse_unread(settings, [short_name(defence) for defence in self._grid.config.defence])
        for defence in self._grid.config.defence:
            name = short_name(defence)
            own = {name: settings[name]} if name in settings else {}
            defence_of(Evaluate(defence=defence, defence_settings=own, generation=self._generation()))
            typed = [f"defence_settings.{key}={text_of(value)}" for key, value in flatten(own)]
            names[name] = [f"defence={defence}", *typed]
        return [self._reference(cells, name, more) for cells in models.values() for name, more in names.items()]

    def _generation(self) -> Answering:
        """How the first evaluated run is asked; a model without training is asked in the same way."""
        asked = [self._evaluate(cell) for cell in self._cells if self._evaluation(cell)]
        return asked[0].generation if asked else Answering()

    def _reference(self, cells: list[Cell], name: str, more: list[str]) -> Row:
        axes = {key: value for key, value in cells[0].axes.items() if _of_model(key)}
        # An axis may be a setting of the model: each value is another base model.
        name = _short("-".join([name, *(value for key, value in axes.items() if key != "model")]))
        path = cells[0].path.parent / name
        model = [f"{key}={value}" for key, value in axes.items()]
        model += [it for it in self._grid.settings if _of_model(it.split("=")[0])]
        evaluate = _union([self._evaluate(cell) for cell in {self._key(cell): cell for cell in cells}.values()])
        first = [*model, f"name={name}", f"output_dir={path}", *more]
        return Row(
            path, axes | {"name": name}, (_task(EVALUATE, path, RunFolder(path).evaluation, first, _asked(evaluate)),)
        )

    def _key(self, cell: Cell) -> str:
        return json.dumps(cell.values["evaluate"], sort_keys=True)

    def _evaluate(self, cell: Cell) -> Evaluate:
        key = self._key(cell)
        if key not in self._evaluations:
            self._evaluations[key] = cell.composed().config.evaluate
        return self._evaluations[key]

    def _evaluation(self, cell: Cell) -> dict[str, Any]:
        """The evaluation of a run, for a task; empty without benchmarks, and for a reward model."""
        if cell.values["method"] == REWARD_MODEL:
            return {}
        key = self._key(cell)
        if key not in self._asked:
            evaluate = self._evaluate(cell)
            _refuse_unknown_judges(evaluate)
            self._asked[key] = _asked(evaluate) if evaluate.benchmark or evaluate.lmms_eval.tasks else {}
        return self._asked[key]

    def _validation(self, cell: Cell) -> dict[str, Any]:
        """The validation of a run: its evaluation, overridden by validate.*.

        Raises UserError if it would use reported rows.
        """
        key = self._key(cell)
        if key not in self._validations:
            laid = ["evaluate.lmms_eval.tasks=[]", *(f"evaluate.{argument}" for argument in self._grid.validate)]
            validate = compose_run([*without_launch(cell.arguments), *laid]).config.evaluate
            _refuse_unknown_judges(validate)
            if validate.judge.name == [NONE]:
                raise UserError("validate.judge=none: settings cannot be chosen without verdicts. Name a judge.")
            _refuse_same_rows(self._evaluate(cell), validate)
            self._validations[key] = _asked(validate)
        return self._validations[key]


def _refuse_reward_models_twice(cells: Sequence[Cell]) -> None:
    """Raises UserError for a reward model's recipe that other runs of the grid train anyway."""
    recipes = {cell.values["recipe"] for cell in cells}
    for cell in cells:
        for name in needed_by(cell):
            if name in recipes:
                raise UserError(
                    f"recipe={name}: the runs of recipe={cell.values['recipe']} train this reward model by themselves, "
                    f"once for each model and seed. Remove {name} from recipe=."
                )


def needed_by(cell: Cell) -> list[str]:
    """Recipes of the reward models that a run trains first, if they are absent."""
    rewards = [*(cell.values["rewards"] or {}).values(), cell.values["cost"] or {}]
    return [str(one["recipe"]) for one in rewards if one.get("recipe") and not one.get("path")]


def _task(stage: str, path: Path, evaluation: Path, first: list[str], asked: dict[str, Any]) -> Task:
    rest = {key: value for key, value in asked.items() if key != "arguments"}
    return Task(stage, path, (*first, *asked["arguments"]), evaluation, **rest)


def _asked(evaluate: Evaluate) -> dict[str, Any]:
    """A complete evaluation for a task; the stored configuration of a run may be older."""
    settings = {split_view(name)[0]: typed_settings(evaluate, split_view(name)[0]) for name in evaluate.benchmark}
    judges = [evaluate.judge, *(own for own in evaluate.judge.each.values() if isinstance(own, dict))]
    told = [judge if isinstance(judge, dict) else vars(judge) for judge in judges]
    return {
        "arguments": tuple(_typed(evaluate)),
        "sets": tuple(set_names(evaluate)),
        "judges": tuple(evaluate.judge.name),
        "measured": tuple(evaluate.lmms_eval.tasks),
        "narrowed": {set_name(name, of): text for name, of in settings.items() if (text := narrowing(of))},
        "served": any(
            one.get("model") and not any(one.get(key) for key in ("base_url", "path", "serve")) for one in told
        )
        and not evaluate.judge.base_url,
    }


def _typed(evaluate: Evaluate) -> list[str]:
    defaults = dict(flatten(asdict(Evaluate())))
    of_set = asdict(BenchmarkSettings())
    found = []
    for key, value in flatten(asdict(evaluate)):
        default = of_set.get(key.rpartition(".")[2]) if key.startswith("settings.") else defaults.get(key)
        if key != "every_steps" and value not in (default, None, [], {}):
            found.append(f"{'judge' if key == 'judge.name' else key}={text_of(value)}")
    return found


def _union(evaluations: Sequence[Evaluate]) -> Evaluate:
    """All benchmarks of the recipes of one model. Raises UserError if their settings differ."""
    first, *others = evaluations
    benchmark, settings = list(first.benchmark), dict(first.settings)
    for other in others:
        for key, value in asdict(other).items():
            if key not in ("benchmark", "settings") and value != asdict(first)[key]:
                raise UserError(
                    f"evaluate.{key} differs between recipes of one model. Give it once for all, or vanilla=false."
                )
        for name, own in other.settings.items():
            if settings.setdefault(name, own) != own:
                raise UserError(
                    f"evaluate.settings.{name} differs between recipes of one model. Give it once for all, or "
                    "vanilla=false."
                )
        benchmark += [name for name in other.benchmark if name not in benchmark]
    return replace(first, benchmark=benchmark, settings=settings)


def _refuse_unknown_judges(evaluate: Evaluate) -> None:
    for name in evaluate.judge.name:
        if name != NONE:
            resolve("evaluate.judge", name, JUDGES)


def _refuse_same_rows(reported: Evaluate, validate: Evaluate) -> None:
    """Raises UserError if validation uses reported rows of a benchmark, in any view."""
    both = {split_view(name)[0] for name in reported.benchmark} & {split_view(name)[0] for name in validate.benchmark}
    for name in sorted(both):
        ours, theirs = typed_settings(reported, name), typed_settings(validate, name)
        if all(getattr(ours, key) == getattr(theirs, key) for key in PLACES):
            raise UserError(
                f"validate.benchmark={name}: settings would be chosen by rows that are reported. Give "
                f"validate.settings.{name}.subset=validation (or where=, path=), or benchmarks that are not in "
                "evaluate.benchmark."
            )


def _of_model(key: str) -> bool:
    return key.split(".")[0] == "model"


def _axes(axes: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in axes.items())


def _short(name: str) -> str:
    """A folder name from values that may be paths."""
    name = name.replace("/", "-")
    return name if len(name) <= LONGEST else f"{name[-LONGEST:]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
