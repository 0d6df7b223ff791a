"""`align data benchmark=all`: which published benchmarks are available, and which are not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from rich.console import Console

from align.config.registry import BENCHMARKS, data_set_of, resolve
from align.data.files.image_bytes import exists
from align.data.hints import Place, options_of
from align.data.reading import VARIABLE, places_below
from align.errors import UserError
from align.evaluation.benchmark import Benchmark, differences
from align.evaluation.selection import settings_of
from align.settings import BenchmarkSettings, DataConfig, EvalConfig

ALL = "all"
OTHERS = (
    *("source", "path", "revision", "image_root", "columns", "role", "subset", "model", "sample"),
    *("limit", "limit_order", "limit_seed", "where"),
)
"""Options of `align data` for named benchmarks."""
AVAILABLE, UNREADABLE, ABSENT = "available", "unreadable", "absent"
REMEDY = {
    AVAILABLE: "Images were looked for, not decoded: `align data benchmark=<name>` decodes them",
    UNREADABLE: "",
    ABSENT: "Put them where they are looked for, or give settings.<benchmark>.path=",
}
"""{state: what to know about benchmarks in it}"""


@dataclass
class Found:
    """A benchmark, and its files here."""

    benchmark: str
    state: str
    """A key of REMEDY."""
    path: str | None = None
    rows: int | None = None
    images: int | None = None
    missing_images: int | None = None
    facts: list[str] = field(default_factory=list)
    """Differences from the published benchmark."""
    error: str | None = None
    looked_for: list[str] = field(default_factory=list)
    """Where the files of an absent benchmark would be found."""


def show_all(config: DataConfig) -> int:
    """Print which benchmarks are available. Raises UserError.

    Returns 1 with validate=true where a benchmark that is there cannot be read or lacks images.
    """
    found = list(_found(config))
    if config.summary:
        for one in found:
            print(json.dumps({key: value for key, value in asdict(one).items() if value not in (None, [])}))
    else:
        _describe(Console(highlight=False), found)
    return int(config.validate and any(one.state == UNREADABLE or one.missing_images for one in found))


def _found(config: DataConfig) -> Iterator[Found]:
    if list(config.benchmark) != [ALL]:
        raise UserError(f"benchmark={','.join(config.benchmark)}: `all` takes no other names. Remove them, or `all`")
    if unused := [key for key in OTHERS if getattr(config, key) not in (None, {})]:
        raise UserError(f"{unused[0]}= does not go with benchmark=all. Name the benchmarks, or remove {unused[0]}=")
    published = {
        name: benchmark for name in BENCHMARKS if (benchmark := resolve("benchmark", name, BENCHMARKS)).published
    }
    evaluation = EvalConfig(
        benchmark=list(published),
        settings=config.settings,
        data_root=config.data_root,
        follow_links=config.follow_links or None,
    )
    if not places_below(config.data_root, "") and not any(one.path for one in config.settings.values()):
        raise UserError(
            f"benchmark=all: no place to look. Give data_root=<folder that holds datasets by name> (or ${VARIABLE}), "
            "or settings.<benchmark>.path="
        )
    for name, benchmark in published.items():
        settings = settings_of(evaluation, name)
        if settings.path is None:
            places = map(str, places_below(config.data_root, data_set_of(name)))
            yield Found(name, ABSENT, looked_for=list(places))
        else:
            yield _read(name, benchmark, settings)


def _read(name: str, benchmark: Benchmark, settings: BenchmarkSettings) -> Found:
    try:
        with options_of(Place(f"settings.{data_set_of(name)}")):
            read = benchmark.every(settings)
    except UserError as error:
        return Found(name, UNREADABLE, settings.path, error=str(error))
    rows = benchmark.own(read.rows)
    images = {image for row in rows for image in row.images}
    missing = sum(not exists(image) for image in images)
    facts = [*read.facts, *differences(benchmark, read.rows, settings.subset)]
    return Found(name, AVAILABLE, settings.path, len(rows), len(images), missing, facts)


def _describe(console: Console, found: list[Found]) -> None:
    def line(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    for state, remedy in REMEDY.items():
        those = [one for one in found if one.state == state]
        line(f"{state}: {len(those)} of {len(found)} benchmarks{f'. {remedy}' if remedy and those else ''}")
        for one in those:
            line(f"  {one.benchmark}: {_what(one)}")
            for fact in one.facts:
                line(f"    {fact}")


def _what(one: Found) -> str:
    if one.state == ABSENT:
        return f"looked for {' and '.join(one.looked_for)}" if one.looked_for else "not looked for: no data_root="
    if one.error is not None:
        return one.error
    missing = f", {one.missing_images:,} of them missing" if one.missing_images else ""
    return f"{one.rows:,} rows, {one.images:,} images{missing}; {one.path}"
