"""Arguments of `align sweep` -> axes, settings of all runs, the sweep's own settings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from align.config.compose import DEFAULT_MODEL, compose
from align.config.files import available, launch_file, read_yaml, shipped_folder
from align.config.merge import schema_node
from align.config.registry import benchmark_names
from align.config.values import flatten, parse_value
from align.errors import UserError, nearest
from align.settings import Cluster, Judging, LaunchConfig, RunConfig, SweepConfig

OWN = tuple(field.name for field in fields(SweepConfig))
OF_RUNS = (*(field.name for field in fields(RunConfig)), "launch")
CHOSEN_HERE = {
    "resume": "a sweep always resumes",
    "evaluate_afterwards": "a sweep evaluates in separate jobs",
    "variant": "it is made from the axes",
    "evaluate.defence": "defences are evaluated on the base models only: use defence=<names>",
}
VALIDATE = "validate."
PLAIN = re.compile(r"[\w./:@%+~-]([\w ./:@%+~=-]*[\w./:@%+~=-])?")
"""Text that needs no quotes: it has no separators and opens no list."""
NAMED = ("recipe", "model", "seed")
"""Axes even with one value: tables name them."""


@dataclass(frozen=True)
class Grid:
    """A grid of runs."""

    axes: dict[str, list[str]]
    """{setting: its values}, each as typed."""
    settings: list[str]
    """Arguments that all runs share."""
    validate: list[str]
    """Arguments of the validation that chooses settings."""
    config: SweepConfig


def read_grid(arguments: Sequence[str]) -> Grid:
    """Read `key=value` arguments, over the YAML file of `grid=`. Raises UserError."""
    typed = [_pair(argument) for argument in arguments]
    files = [text for key, text in typed if key == "grid"]
    given = [pair for file in files[-1:] for pair in _of_file(_file(file))]
    taken = {key for key, _ in typed}
    for key in taken:
        if (said := [text for other, text in typed if other == key]) != said[:1]:
            raise UserError(
                f"{key}= is given twice, as {' and as '.join(said)}. Give it once, with commas between the values."
            )
    # A typed key replaces the file's value, even an axis.
    pairs = [(key, text) for key, text in given if key not in taken] + typed
    of_runs: dict[str, str] = {}
    own: list[str] = []
    # A cluster file comes first: typed cluster settings override it.
    for key, text in sorted(pairs, key=lambda pair: pair[0] != "cluster"):
        section = key.split(".")[0]
        if section in OWN:
            own += _own(key, text)
        elif (section if section != "evaluate" else key) in CHOSEN_HERE:
            raise UserError(
                f"{key}= is not a setting of a sweep: {CHOSEN_HERE.get(key) or CHOSEN_HERE[section]}. Remove it."
            )
        elif section in OF_RUNS:
            of_runs[key] = text
        else:
            raise UserError(f"{key}=: there is no such setting{nearest(section, [*OWN, *OF_RUNS])}")
    axes, settings = _split(of_runs)
    of_launch = [setting.removeprefix("launch.") for setting in settings if setting.startswith("launch.")]
    launch: LaunchConfig = compose(LaunchConfig, of_launch).config
    if launch.config:
        launch_file(launch.config)
    validate = [argument.removeprefix(VALIDATE) for argument in own if argument.startswith(VALIDATE)]
    config: SweepConfig = compose(SweepConfig, own).config
    config.validate.benchmark = benchmark_names(config.validate.benchmark)
    # Jobs and runs are compared by folder, so the path must not depend on the working directory.
    config.output_dir = str(Path(config.output_dir).resolve())
    _check(config, axes, validate)
    return Grid(axes, settings, validate, config)


def values_of(key: str, text: str) -> list[str]:
    """The values of a setting, as typed, split at commas outside brackets and quotes.

    A list setting keeps its commas; several values of it are lists in brackets.
    """
    parts = _at_commas(text)
    lists = all(part.startswith("[") and part.endswith("]") for part in parts)
    return [text] if _is_list(key) and not lists else parts


def text_of(value: Any) -> str:
    """A value of a YAML file in command-line form."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and parse_value(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _pair(argument: str) -> tuple[str, str]:
    key, equals, text = argument.partition("=")
    if not equals or not key:
        raise UserError(f"argument {argument!r}: expected key=value (a comma in the value makes an axis)")
    if "\n" in text:
        raise UserError(f"argument {key}=: found a line break, but arguments of a sweep must be one line. Remove it.")
    return key, text


def _file(name: str) -> Path:
    """A grid file by path, or a shipped one by name."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    if name not in available("sweeps"):
        names = available("sweeps")
        raise UserError(
            f"grid={name}: no such grid{nearest(name, names)}. Give a shipped grid ({', '.join(names)}) or the path of "
            "a YAML file."
        )
    return shipped_folder("recipes") / "sweeps" / f"{name}.yaml"


def _of_file(file: Path) -> Iterator[tuple[str, str]]:
    values = read_yaml("grid", file)
    axes, settings = values.pop("axes", {}), values.pop("settings", {})
    for name, section in (("axes", axes), ("settings", settings)):
        if not isinstance(section, dict):
            raise UserError(f"{file}: {name}: expected settings by name, found {type(section).__name__}")
    for key in dict(flatten(settings)).keys() & axes.keys():
        raise UserError(f"{file}: {key} is under both axes and settings. Remove one.")
    for key, each in axes.items():
        if not isinstance(each, list) or not each:
            raise UserError(f"{file}: axes.{key}: expected a list of values, found {each!r}")
        yield key, ",".join(map(text_of, each)) if not _is_list(key) else ",".join(map(text_of, map(_as_list, each)))
    yield from ((key, text_of(value)) for key, value in flatten(settings))
    for key in values:
        if key not in OWN or key == "grid":
            raise UserError(
                f"{file}: {key}: expected axes, settings or a setting of the "
                f"sweep{nearest(key, [*OWN, 'axes', 'settings'])}; put settings of runs under settings:"
            )
    yield from ((key, text_of(value)) for key, value in flatten(values))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _own(key: str, text: str) -> list[str]:
    """Arguments for a setting of the sweep; `cluster=<file>` gives the file's settings."""
    if key == "grid":
        return []
    if key != "cluster":
        return [f"{key}={text}"]
    values = dict(flatten(read_yaml("cluster", Path(text))))
    for name, value in values.items():
        if name.endswith("time") and isinstance(value, int):
            raise UserError(
                f"{text}: {name}: YAML reads the time as the number {value}. Put it in quotes, e.g. '12:00:00'"
            )
    # ${...} belongs to the shell here, not to OmegaConf.
    typed = [f"{name}={text_of(value)}".replace("${", "\\\\${") for name, value in values.items()]
    try:
        compose(Cluster, typed)
    except UserError as error:
        raise UserError(f"{text}: {error}") from error
    return [f"cluster.{argument}" for argument in typed]


def _split(of_runs: dict[str, str]) -> tuple[dict[str, list[str]], list[str]]:
    if "recipe" not in of_runs:
        raise UserError("recipe= is missing. Give recipe=<names>, or grid=<file> with an axis recipe.")
    axes: dict[str, list[str]] = {}
    settings: list[str] = []
    for key, text in ({"recipe": "", "model": DEFAULT_MODEL} | of_runs).items():
        values = values_of(key, text)
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise UserError(f"{key}={text}: {twice} occurs twice. Remove one; for a list as one value, use brackets.")
        if len(values) > 1 or key in NAMED:
            axes[key] = values
        else:
            settings.append(f"{key}={text}")
    return axes, settings


def _check(config: SweepConfig, axes: dict[str, list[str]], validate: list[str]) -> None:
    if not PLAIN.fullmatch(config.output_dir) or "%" in config.output_dir:
        raise UserError(
            f"output_dir={config.output_dir}: a sweep needs a path without , % # quotes or brackets, for arguments and "
            "SLURM file names"
        )
    if config.devices and len(config.devices) % (config.at_once or 1):
        raise UserError(
            f"devices={','.join(config.devices)}: {len(config.devices)} devices cannot be divided evenly by "
            f"at_once={config.at_once} runs"
        )
    if config.launcher not in ("local", "slurm"):
        raise UserError(f"launcher={config.launcher}: expected local or slurm")
    if config.at_once is not None and config.at_once < 1:
        raise UserError(f"at_once={config.at_once}: expected at least 1")
    if config.launcher == "slurm" and config.devices:
        raise UserError(
            "devices= has no effect with launcher=slurm: SLURM assigns GPUs to jobs. Set cluster.gpus_per_node= "
            "instead."
        )
    for key in config.tune:
        if key not in axes or len(axes[key]) < 2:
            raise UserError(f"tune={key}: expected an axis with several values; axes: {', '.join(axes)}")
        if key in NAMED:
            raise UserError(
                f"tune={key}: recipe, model and seed define the cells, and cannot be tuned. Name another axis."
            )
    if config.tune and not config.validate.benchmark:
        raise UserError(
            f"tune={','.join(config.tune)}: validate.benchmark= is missing. Give the benchmarks for the choice."
        )
    if validate and not config.tune:
        raise UserError("validate.* has no effect without tune=. Give tune=<axes to choose a value of>, or remove it.")


def _is_list(key: str) -> bool:
    """Whether the setting is a list in the schema, so that commas do not split values."""
    node = schema_node(RunConfig, key)
    return isinstance(node, ListConfig) or (isinstance(node, DictConfig) and OmegaConf.get_type(node) is Judging)


def _at_commas(text: str) -> list[str]:
    parts, depth, quote, escaped = [""], 0, "", False
    for character in text:
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped and quote == '"'
        elif character in "\"'" and re.search(r"(^|[\[{,:\s])$", parts[-1]):
            quote = character
        else:
            depth += (character in "[{") - (character in "]}")
            if character == "," and depth <= 0:
                parts.append("")
                continue
        parts[-1] += character
    return parts
