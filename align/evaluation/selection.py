"""Select the rows of a benchmark from its name and settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from align.config.own_benchmarks import short_names
from align.config.registry import check_benchmark_name, data_set_of
from align.data.assembly import TrainingData
from align.data.hints import Place, options_of, text_view
from align.data.images import drop_missing
from align.data.overlap import OVERLAP_REMEDY, find_overlap, index, refuse_overlap
from align.data.reading import at_root, tell_unread_images
from align.data.views import READS_IMAGES, check_view, show
from align.errors import UserError
from align.evaluation.benchmark import Benchmark, check_twins, differences, kind_of, select
from align.evaluation.named import benchmark_of, check_own_file
from align.rows import Row, split_view
from align.settings import BenchmarkSettings, Evaluate, LeakageConfig, RunConfig, ShortForms

OF_EVERY_BENCHMARK = ("follow_links", "limit", "limit_order", "limit_seed", "on_missing_image")
"""Short forms that can apply to several benchmarks at once."""
OF_ONE_BENCHMARK = ("path", "revision", "image_root", "columns", "role", "subset", "turns", "where")
"""Short forms that need exactly one benchmark."""


@dataclass
class Selected:
    """The rows of one benchmark in one view."""

    benchmark: Benchmark
    view: str
    rows: list[Row]
    """Rows in the view, for the model."""
    facts: list[str]
    """Lines on selections and missing images, printed and stored with the results."""
    items: list[Row]
    """The same rows in their original form, for judges."""
    narrowed: str | None = None
    """The selection in words; None for all rows."""

    @property
    def name(self) -> str:
        """`<benchmark>`, or `<benchmark>.<view>` for other views than the image."""
        return self.benchmark.name if self.view == "image" else f"{self.benchmark.name}.{self.view}"


def narrowing(settings: BenchmarkSettings) -> str | None:
    """The selection of rows by settings, in words; None for all rows."""
    given = {key: getattr(settings, key) for key in ("subset", "limit", "where") if getattr(settings, key)}
    if "limit" in given:
        first = settings.limit_order == "first"
        given["limit"] = (
            f"{settings.limit} ({'the first rows' if first else f'a stratified sample, seed {settings.limit_seed}'})"
        )
    return ", ".join(f"{key}={value}" for key, value in given.items()) or None


def select_rows(
    name: str, view: str, settings: BenchmarkSettings, mixed: bool = False, place: Place | None = None
) -> Selected:
    """Read a benchmark, select rows by its settings, and apply the view. Raises UserError.

    `mixed` allows rows of several kinds in one file, for callers that make no single rate. `place`
    is where the settings are typed.
    """
    with options_of(place or Place()):
        return _select_rows(name, view, settings, mixed)


def _select_rows(name: str, view: str, settings: BenchmarkSettings, mixed: bool) -> Selected:
    check_view(view)
    benchmark = benchmark_of(name, settings)
    read = benchmark.every(settings)
    unread = tell_unread_images(f"benchmark {name}", read, view in READS_IMAGES)
    every = read.rows
    rows = select(benchmark, every, settings)
    if benchmark.kind == "as its rows say":
        benchmark = replace(benchmark, kind=kind_of(rows, name, mixed))
    missing = None
    if view in READS_IMAGES:
        rows, missing = drop_missing(rows, settings.on_missing_image, f"benchmark {name}")
    if not rows:
        without = f". {text_view()} needs no images" if text_view() else ""
        raise UserError(f"{missing}. No row of benchmark {name} is left to evaluate{without}")
    ids = Counter(row.id for row in rows)
    if twice := [row_id for row_id, count in ids.items() if count > 1]:
        of = f" of {settings.path}" if settings.path else ""
        raise UserError(
            f"benchmark {name}{of}: {len(twice)} ids occur twice, first {twice[0][:80]!r}. Responses and verdicts are "
            "stored by id: make the ids unique."
        )
    if benchmark.kind == "twin" and missing:
        rows, missing = _whole_pairs(rows, missing)
    with_images = [row for row in rows if row.images]
    shown = [show(row, view, with_images) for row in rows]
    check_twins(benchmark, rows)
    facts = [*read.facts, *unread, *differences(benchmark, every, settings.subset)]
    if narrowed := narrowing(settings):
        facts.append(f"{benchmark.name}: only {narrowed}")
    return Selected(benchmark, view, shown, facts + ([missing] if missing else []), rows, narrowed)


def _whole_pairs(rows: list[Row], missing: str) -> tuple[list[Row], str]:
    """Leave out rows whose twin lacks its image."""
    halves = Counter(row.twin for row in rows)
    whole = [row for row in rows if halves[row.twin] == 2]
    alone = len(rows) - len(whole)
    return whole, f"{missing}; {alone} rows left out whose twin lacks its image" if alone else missing


def place_of(config: Evaluate | LeakageConfig, name: str) -> Place:
    """Where settings of a benchmark are typed: short forms, or under its name if several."""
    if not isinstance(config, ShortForms):
        return Place(f"evaluate.settings.{name}", "evaluate.view")
    view = "view" if isinstance(config, Evaluate) else None
    return Place("" if len(_data_sets(config)) == 1 else f"settings.{name}", view)


def _data_sets(config: ShortForms) -> set[str]:
    """The data sets of all benchmarks that a command names."""
    against = [config.against] if isinstance(config, LeakageConfig) and config.against else []
    named = [*config.benchmark, *against] if isinstance(config, Evaluate | LeakageConfig) else against
    return {data_set_of(split_view(benchmark)[0]) for benchmark in named}


def settings_of(config: Evaluate | LeakageConfig, name: str) -> BenchmarkSettings:
    """A benchmark's settings; without a path, its place by name in data_root. Raises UserError."""
    return at_root(typed_settings(config, name), config.data_root, data_set_of(name))


def typed_settings(config: Evaluate | LeakageConfig, name: str) -> BenchmarkSettings:
    """A benchmark's own settings, overridden by short forms of the command line.

    Raises UserError.
    """
    data_set = data_set_of(name)
    _check_names(config)
    # Settings of a benchmark override settings of its data set.
    settings = config.settings.get(data_set, BenchmarkSettings())
    if own := config.settings.get(name):
        settings = replace(
            settings, **{key: value for key, value in vars(own).items() if value != getattr(BenchmarkSettings(), key)}
        )
    if not isinstance(config, ShortForms):
        return settings
    short = {key: getattr(config, key) for key in (*OF_ONE_BENCHMARK, *OF_EVERY_BENCHMARK)}
    short = {key: value for key, value in short.items() if value not in (None, {})}
    if config.columns:
        short["columns"] = settings.columns | config.columns
    alone = [key for key in short if key not in OF_EVERY_BENCHMARK]
    several = len(_data_sets(config))
    if alone and several > 1:
        raise UserError(f"{alone[0]}=: {several} benchmarks are named. Give settings.<benchmark>.{alone[0]}= for each.")
    return replace(settings, **short)


def _check_names(config: Evaluate | LeakageConfig) -> None:
    """Raises UserError for settings of an unknown benchmark, and for two benchmarks of one name."""
    section = "settings" if isinstance(config, ShortForms) else "evaluate.settings"
    own = short_names(config.benchmark)
    for key, settings in config.settings.items():
        if settings.source is None:
            check_benchmark_name(f"{section}.{key}", key, own)
        else:
            check_own_file(f"{section}.{key}", key, settings)
    named = {split_view(name)[0] for name in config.benchmark}
    for name, those in own.items():
        if len(alike := [*those, *({name} & named)]) > 1:
            raise UserError(
                f"benchmark={','.join(alike)}: both have the name {name} in files and tables. Give one of them another "
                "name."
            )


def selections_of(config: Evaluate) -> list[Selected]:
    """Select every benchmark of a configuration in each of its views. Raises UserError."""
    return [
        select_rows(name, view, settings_of(config, name), place=place_of(config, name))
        for name, views in _wanted(config).items()
        for view in views
    ]


def refuse_overlap_with_benchmarks(config: Evaluate, training: Iterable[dict[str, Any]]) -> list[str]:
    """Raises UserError if a training row's image or question is in an evaluated benchmark.

    Returns lines on rows that are only similar. `training` are the records of the training rows, as
    in rows.jsonl of a run folder. A benchmark is compared by its own images in any view; if no view
    needs image files, only by its questions.
    """
    trained = index(training)
    # A finished run can no longer drop rows.
    remedy = "choose other benchmarks with benchmark=" if isinstance(config, ShortForms) else OVERLAP_REMEDY
    lines = [refuse_overlap(trained, of.rows, of.name, of.benchmark.shared_prompts, remedy) for of in _compared(config)]
    return [line for line in lines if line]


def without_overlap(config: RunConfig, data: TrainingData) -> TrainingData:
    """With on_overlap=drop: training data without rows that an evaluated benchmark has too.

    Raises UserError.
    """
    if config.on_overlap not in ("error", "drop"):
        raise UserError(f"on_overlap={config.on_overlap}: expected error or drop")
    if config.on_overlap == "error":
        return data
    trained, common = index(data.records()), dict[str, set[str]]()
    for of in _compared(config.evaluate):
        found = find_overlap(trained, of.rows, of.benchmark.shared_prompts)
        common.setdefault(of.name, set()).update(train for train, _ in (*found.images, *found.questions))
    return data.without({name: ids for name, ids in common.items() if ids})


def _compared(config: Evaluate) -> Iterator[Selected]:
    for name, views in _wanted(config).items():
        view = "image" if any(view in READS_IMAGES for view in views) else "text"
        yield select_rows(name, view, settings_of(config, name), place=place_of(config, name))


def set_name(benchmark: str, settings: BenchmarkSettings | None) -> str:
    """A benchmark's name in files and tables. Raises UserError for an unknown benchmark."""
    return benchmark_of(benchmark, settings).name


def set_names(config: Evaluate) -> list[str]:
    """Names of an evaluation's results: each benchmark in each view.

    Raises UserError for an unknown benchmark.
    """
    _check_names(config)
    return [
        Selected(benchmark_of(name, config.settings.get(name)), view, [], [], []).name
        for name, views in _wanted(config).items()
        for view in views
    ]


def _wanted(config: Evaluate) -> dict[str, list[str]]:
    """{benchmark: its views}; a name may include its view."""
    wanted: dict[str, list[str]] = {}
    for name in config.benchmark:
        benchmark, own = split_view(name)
        views = wanted.setdefault(benchmark, [])
        views += [view for view in ([own] if own else config.view) if view not in views]
    return wanted
