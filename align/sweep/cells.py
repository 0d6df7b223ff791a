"""The runs of a grid: name, folder and training arguments of each.

Composing a configuration takes tens of milliseconds, and a grid may have thousands of runs. So only
settings that choose files (recipe, model, ...) are composed for every combination. For other
settings each value is composed once and then inserted.
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
"""Instead of a value: a section, or no such place."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    axes: dict[str, str]
    """{setting: value of this run}"""
    arguments: tuple[str, ...]
    """Arguments of `align train`."""
    path: Path
    values: dict[str, Any]
    """The whole configuration without folder and name."""

    def composed(self) -> Composed:
        """The configuration with the origins of its values. Raises UserError."""
        return compose_run(without_launch(self.arguments))


def cells_of(grid: Grid) -> list[Cell]:
    """Every run of a grid, in the order of its axes.

    Raises UserError for an invalid setting, or an axis whose values give equal runs.
    """
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
        f"{', '.join(differs)}: these two runs would train the same, but an axis must change training. For a list as "
        "one value, use brackets."
    )


def without_launch(arguments: Sequence[str]) -> list[str]:
    """Arguments of `align train` without launch options."""
    return [argument for argument in arguments if not argument.startswith(LAUNCH)]


class _Composer:
    def __init__(self, grid: Grid):
        self._grid = grid
        self._picking = [key for key in grid.axes if key.split(".")[0] in PICKS_FILES]
        self._first = {key: values[0] for key, values in grid.axes.items()}
        self._grounds: dict[tuple[str, ...], dict[str, Any]] = {}
        self._leaves: dict[tuple[str, str], Any] = {}

    def cell(self, axes: dict[str, str]) -> Cell:
        """The run with these values of the axes."""
        values = self._ground(axes)
        for key, text in axes.items():
            if key not in self._picking and not key.startswith(LAUNCH):
                leaf = self._leaf(key, text)
                path = key.split(".")
                if leaf is SECTION or not _has(values, path):  # needs merging by its own rules
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
        """The configuration with the first value of each axis that chooses no file."""
        picks = tuple(axes[key] for key in self._picking)
        if picks not in self._grounds:
            self._grounds[picks] = self._compose(self._first | dict(zip(self._picking, picks, strict=True)))
        return self._grounds[picks]

    def _leaf(self, key: str, text: str) -> Any:
        """The parsed value of a setting, or SECTION. Raises UserError for an invalid value.

        One composition parses one value of each axis; integers of integer settings need none.
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
    """Whether the path exists and is not a section."""
    for part in path[:-1]:
        values = values.get(part)
        if not isinstance(values, dict):
            return False
    return not isinstance(values.get(path[-1]), dict)


def _with(values: dict[str, Any], path: Sequence[str], leaf: Any) -> dict[str, Any]:
    """The values with another value at a path; changed parts are copied, the rest is shared."""
    first, *rest = path
    return values | {first: _with(values[first], rest, leaf) if rest else leaf}
