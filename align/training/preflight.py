"""Check that a run's model, data and benchmarks exist before it starts.

`missing` runs at every start and only checks that files exist. `surveyed` reads the rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from align.answering.endpoint import check_settings
from align.answering.thinking import switched, thinking_of
from align.config.paths import is_hub_id
from align.config.registry import BENCHMARKS, SOURCES
from align.data.answers import FIELDS, GENERATE
from align.data.assembly import read_part
from align.data.files.folder import named_roots
from align.errors import UserError
from align.evaluation.benchmark import Benchmark
from align.evaluation.judges.build import NONE, build, judges_for, refuse_foreign
from align.evaluation.named import benchmark_of
from align.evaluation.selection import selections_of
from align.evaluation.verdicts import AnyJudge, Judge
from align.models import presence
from align.rows import Row, split_view
from align.settings import BenchmarkSettings, Part, RunConfig


@dataclass
class Surveyed:
    """One part of the data, or one benchmark."""

    name: str
    found: str
    """Numbers of rows and images, or why they cannot be read."""
    readable: bool


def missing(config: RunConfig) -> list[str]:
    """A line, with what to do, for each missing part of a run's model, data and benchmarks.

    A hub id that is not in the cache is missing only if HF_HUB_OFFLINE forbids the download. Files
    are not read.
    """
    lines = missing_model(config, strict=presence.offline())
    evaluated = {split_view(name)[0] for name in config.evaluate.benchmark}
    # The path of a user's own source or benchmark need not be a file.
    files: dict[str, Part | BenchmarkSettings] = {
        f"data.{name}": part for name, part in config.data.items() if part.source in SOURCES
    }
    files |= {
        f"evaluate.settings.{name}": of
        for name, of in config.evaluate.settings.items()
        if name in evaluated and (name in BENCHMARKS or of.source)
    }
    for name, settings in files.items():
        places = [("path", settings.path)] if settings.path else []
        places += [("image_root", root) for root in named_roots(settings.image_root)]
        for key, path in places:
            if not Path(path).exists() and not (
                key == "path" and is_hub_id(path)
            ):  # a hub dataset is downloaded when it is read
                lines.append(f"{name}.{key}={path}: does not exist here; correct the path, or put the data there")
    lines += _impossible_answering(config)
    # An evaluation job that runs later may be given its judges' endpoints then, so they are not
    # checked now.
    return lines + (missing_judges(config) if config.evaluate_afterwards else [])


def _impossible_answering(config: RunConfig) -> list[str]:
    """Generation settings that the evaluation after training would reject."""
    generation = config.evaluate.generation
    try:
        check_settings(generation)
    except UserError as error:
        return [_of_run(error, "generation")]
    if generation.base_url is None:
        return []
    return [
        "evaluate.generation.base_url= cannot be used: the evaluation after training uses the run's own model; remove "
        "it, or use generation.base_url= of align eval"
    ]


def missing_judges(config: RunConfig) -> list[str]:
    """Judges that the evaluation after training could not use: a line each, with what to do.

    No judge is called.
    """
    judging = config.evaluate.judge
    names = dict.fromkeys(split_view(name)[0] for name in config.evaluate.benchmark)
    benchmarks = {name: benchmark_of(name, config.evaluate.settings.get(name)) for name in names}
    lacking: dict[str, list[str]] = {}
    for benchmark, of_set in benchmarks.items():
        for name in judging.name or of_set.judges:
            try:
                if name != NONE:
                    build(name, judging)
            except UserError as error:
                lacking.setdefault(_of_run(error), []).append(benchmark)
    lines = [f"evaluate.benchmark={','.join(of)}: {line}" for line, of in lacking.items()]
    if benchmarks and not lines:
        try:
            judges = judges_for(judging, list(benchmarks.values()))
        except UserError as error:
            return [_of_run(error)]
        of_others = (
            _foreign_rows(config, name, benchmark, judges[benchmark.name]) for name, benchmark in benchmarks.items()
        )
        lines += [_of_run(error) for error in of_others if error]
    return lines


def _foreign_rows(config: RunConfig, name: str, benchmark: Benchmark, judges: Sequence[AnyJudge]) -> UserError | None:
    """Why a judge that knows only its own benchmarks cannot judge these rows.

    Rows are read only for such a judge.
    """
    knowing_one = [
        judge for judge in judges if isinstance(judge, Judge) and judge.foreign and judge.name not in benchmark.judges
    ]
    try:
        rows, _ = _selected(config, name) if knowing_one else ([], [])
    except UserError:  # errors in the files are reported where the rows are read for the evaluation
        return None
    try:
        for judge in knowing_one:
            refuse_foreign(judge, rows, f"benchmark {benchmark.name}", benchmark.judges)
    except UserError as error:
        return error
    return None


def _of_run(error: UserError, section: str = "judge") -> str:
    """The error of an evaluation with a run's option names: judge= becomes evaluate.judge=."""
    return re.sub(rf"(?<![\w.]){section}(?=[.=])", f"evaluate.{section}", str(error))


def refuse_impossible_thinking(config: RunConfig, template: Any) -> None:
    """Raises UserError if the model's chat template cannot switch thinking as the evaluation after training asks."""
    try:
        switched(config.model, template, thinking_of(config.evaluate.generation))
    except UserError as error:
        raise UserError(_of_run(error, "generation")) from error


def missing_model(config: RunConfig, strict: bool) -> list[str]:
    """A line for each missing part of the model and of its adapter.

    With `strict`, a hub id must be in the cache.
    """
    lines = []
    if line := presence.absent(config.model, strict):
        of_hub = is_hub_id(str(config.model.path))
        lines.append(f"{line}; {presence.remedy(config.model, config.recipe)}" if of_hub else line)
    if config.model.adapter and (line := presence.absent_adapter(config.model.adapter)):
        lines.append(line)
    return lines


def refuse_missing(config: RunConfig) -> None:
    """Raises UserError that lists everything that is missing."""
    lines = missing(config)
    if lines:
        said = lines[0] if len(lines) == 1 else "".join(f"\n  - {line}" for line in lines)
        offline = " (HF_HUB_OFFLINE is set)" if presence.offline() else ""
        raise UserError(f"this run cannot start here{offline}: {said}")


def surveyed(config: RunConfig) -> Iterator[Surveyed]:
    """Read every part of the training data and every benchmark, and count their rows and images."""
    for name in config.data:
        yield _surveyed(f"data.{name}", partial(read_part, config, name))
    for name in dict.fromkeys(config.evaluate.benchmark):
        yield _surveyed(f"benchmark {name}", partial(_selected, config, name))


def _surveyed(name: str, read: Callable[[], tuple[list[Row], list[str]]]) -> Surveyed:
    try:
        rows, facts = read()
    except UserError as error:
        return Surveyed(name, str(error).removeprefix(f"{name}: "), False)
    return Surveyed(name, "; ".join([_counted(rows), *facts]), True)


def _selected(config: RunConfig, name: str) -> tuple[list[Row], list[str]]:
    (chosen, *_) = selections_of(replace(config.evaluate, benchmark=[name]))
    return chosen.rows, chosen.facts


def answers_to_come(config: RunConfig) -> list[str]:
    """A line for each part whose answers are generated, with the model that generates them."""
    behind = config.generation.base_url
    whose = f"the model at endpoint {behind}" if behind else "the base model, on the run's own devices"
    return [
        f"data.{name}.{field}=generate: rows without it are answered by {whose} when the run starts"
        for name, part in config.data.items()
        for field in FIELDS
        if getattr(part, field) == GENERATE
    ]


def _counted(rows: Sequence[Row]) -> str:
    images = {image.name or image.bytes for row in rows for image in row.images}
    return f"{len(rows)} rows, {len(images)} different images"
