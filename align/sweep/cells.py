"""The runs of a grid: what each is called, where it goes, and with which arguments it is trained.

A configuration takes tens of milliseconds to compose, and a grid may have thousands of runs. So only what picks files (recipe, model, ...)
is composed for every combination; of any other setting each value is composed once, and then set in its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import IntegerNode

from align.config.compose import compose_run
from align.config.fingerprint import fingerprint_of
from align.config.merge import Composed, schema_node
from align.config.values import to_dict
from align.errors import UserError
from align.run_folder import folder_within
from align.settings import RunConfig
from align.sweep.grid import NAMED, Grid

PICKS_FILES = ("recipe", "model", "suite", "method", "data")
LAUNCH = "launch."
WHOLE = re.compile(r"0|-?[1-9]\d*")
SECTION = object()
"""In place of a value: settings below it, or nothing to set it in."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    axes: dict[str, str]
    """{setting: this run's value}"""
    arguments: tuple[str, ...]
    """Of `align train`."""
    path: Path
    values: dict[str, Any]
    """Its whole configuration, but for where it goes and what it is called."""

    def composed(self) -> Composed:
        """Its configuration with the origins of its values. Raises UserError."""
        return compose_run(without_launch(self.arguments))


def cells_of(grid: Grid) -> list[Cell]:
    """Every run of a grid, in the order of its axes. Raises UserError for a setting that cannot be, or that makes no other run."""
    composer = _Composer(grid)
    cells: dict[Path, Cell] = {}
    for values in product(*grid.axes.values()):
        cell = composer.cell(dict(zip(grid.axes, values, strict=True)))
        if cell.path in cells:
            raise UserError(_same(cells[cell.path], cell))
        cells[cell.path] = cell
    return list(cells.values())


def _same(one: Cell, other: Cell) -> str:
    differs = [f"{key}={value} and {other.axes[key]}" for key, value in one.axes.items() if value != other.axes[key]]
    return (
        f"{', '.join(differs)}: no two runs, since what is trained is the same. An axis is a setting of training; a list as one value is "
        f"written in brackets"
    )


def without_launch(arguments: Sequence[str]) -> list[str]:
    """Arguments of `align train` that are of the run itself."""
    return [argument for argument in arguments if not argument.startswith(LAUNCH)]


class _Composer:
    def __init__(self, grid: Grid):
        self._grid = grid
        self._picking = [key for key in grid.axes if key.split(".")[0] in PICKS_FILES]
        self._first = {key: values[0] for key, values in grid.axes.items()}
        self._grounds: dict[tuple[str, ...], dict[str, Any]] = {}
        self._leaves: dict[tuple[str, str], Any] = {}

    def cell(self, axes: dict[str, str]) -> Cell:
        """One run."""
        values = self._ground(axes)
        for key, text in axes.items():
            if key not in self._picking and not key.startswith(LAUNCH):
                leaf = self._leaf(key, text)
                path = key.split(".")
                if leaf is SECTION or not _has(values, path):  # merged into what is there, by rules of its own
                    values = self._compose(axes)
                    break
                values = _with(values, path, leaf)
        where = folder_within(
            self._grid.config.output_dir,
            values["model"]["name"],
            values["recipe"],
            values["seed"],
            fingerprint_of(values),
        )
        arguments = [*(f"{key}={text}" for key, text in axes.items()), *self._grid.settings]
        if variant := {key: text for key, text in axes.items() if key not in NAMED}:
            arguments.append(f"variant={json.dumps(variant, ensure_ascii=False)}")
        return Cell(axes, (*arguments, f"output_dir={where}"), where, values)

    def _ground(self, axes: dict[str, str]) -> dict[str, Any]:
        """The configuration with the first value of each axis that picks no file."""
        picks = tuple(axes[key] for key in self._picking)
        if picks not in self._grounds:
            self._grounds[picks] = self._compose(self._first | dict(zip(self._picking, picks, strict=True)))
        return self._grounds[picks]

    def _leaf(self, key: str, text: str) -> Any:
        """What a setting is where it is typed so, or SECTION. Raises UserError where it cannot be.

        One composition tells a value of each axis; a whole number where one is wanted needs none.
        """
        if WHOLE.fullmatch(text) and isinstance(schema_node(RunConfig, key), IntegerNode):
            return int(text)
        if (key, text) not in self._leaves:
            at = self._grid.axes[key].index(text)
            axes = self._first | {
                other: values[min(at, len(values) - 1)]
                for other, values in self._grid.axes.items()
                if other not in self._picking
            }
            composed = self._compose(axes)
            self._leaves |= {(other, typed): _at(composed, other.split(".")) for other, typed in axes.items()}
        return self._leaves[key, text]

    def _compose(self, axes: dict[str, str]) -> dict[str, Any]:
        typed = [*(f"{key}={text}" for key, text in axes.items()), *self._grid.settings]
        return to_dict(compose_run(without_launch(typed)).config)


def _at(values: Any, path: Sequence[str]) -> Any:
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return SECTION
        values = values[part]
    return SECTION if isinstance(values, dict) else values


def _has(values: Any, path: Sequence[str]) -> bool:
    """Whether there is such a place, and what is there is no section."""
    for part in path[:-1]:
        values = values.get(part)
        if not isinstance(values, dict):
            return False
    return not isinstance(values.get(path[-1]), dict)


def _with(values: dict[str, Any], path: Sequence[str], leaf: Any) -> dict[str, Any]:
    """The same with another value at a path; what is changed is copied, the rest is shared."""
    first, *rest = path
    return values | {first: _with(values[first], rest, leaf) if rest else leaf}
