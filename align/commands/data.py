"""`align data`: describe a source or a benchmark, check its images, find overlap."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from align.commands.available import ALL, show_all
from align.commands.proposal import Proposal, proposal
from align.config.compose import compose, compose_model
from align.config.registry import benchmark_names
from align.console import Report, progress
from align.data.assembly import read_source
from align.data.files.archive import not_unpacked
from align.data.hints import Place, options_of
from align.data.images import image_size
from align.data.overlap import Overlap, find_overlap, index, question_hash, short_hash
from align.data.reading import Read
from align.data.summary import Looked, look, summarise
from align.errors import UserError
from align.evaluation.benchmark import Benchmark, differences, select
from align.evaluation.named import benchmark_of
from align.evaluation.selection import narrowing, place_of, settings_of
from align.rows import ImageRef, Row
from align.settings import DataConfig, EvalConfig, Part

OF_BENCHMARKS = ("limit", "limit_order", "limit_seed", "where")
"""Options that sources do not have."""
NAMED = 5
"""How many images or rows with the same fault are named; all are counted."""


@dataclass
class _Set:
    """A source or a benchmark."""

    what: dict[str, str]
    looked: Looked
    facts: list[str]
    shared_prompts: tuple[str, ...] = ()
    bad_rows: list[str] = field(default_factory=list)
    """Rows that the model cannot use, one line for each kind of fault; filled only with model=."""

    @property
    def name(self) -> str:
        return " ".join(f"{key} {name}" for key, name in self.what.items())


def main(arguments: Sequence[str]) -> int:
    """Read, count and show. Raises UserError.

    Returns 1 for a file whose columns have other names, and with validate=true where an image is missing
    or cannot be read.
    """
    config: DataConfig = compose(DataConfig, arguments).config
    if ALL in config.benchmark:
        return show_all(config)
    if config.source is None and not config.benchmark:
        raise UserError("source= and benchmark= are missing. Give source=<name> or benchmark=<names>")
    unused = [key for key in OF_BENCHMARKS if getattr(config, key) not in (None, {})]
    if unused and not config.benchmark:
        raise UserError(
            f"{unused[0]}= has no effect here: it selects rows of a benchmark. Give benchmark=, or use rows= to sample "
            "a source."
        )
    if config.sample is not None and config.sample < 1:
        raise UserError(f"sample={config.sample}: expected at least 1")
    proposed = _proposal(config)
    if proposed and not proposed.readable:
        print("\n".join(proposed.lines(arguments)))
        return 1
    with progress(stderr=True) as display:
        sets = list(_sets(config, display))
        if config.model:
            _look_for_bad_rows(sets, config.model, display)
    shown = [summarise(each.what, each.looked, each.facts) for each in sets]
    if config.source is not None and config.benchmark:
        trained, *evaluated = sets
        for each, summary in zip(evaluated, shown[1:], strict=True):
            summary["overlap"] = _in_common(trained, each)
    for each, summary in zip(sets, shown, strict=True):
        if config.model:
            summary["bad_rows"] = each.bad_rows
    if config.summary:
        for summary in shown:
            print(json.dumps(summary, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        for each, summary in zip(sets, shown, strict=True):
            _describe(console, each, summary)
        for line in proposed.lines(arguments) if proposed else ():
            console.print(line, markup=False, soft_wrap=True)
    for each in sets if config.sample else ():
        for row in _sample(each.looked.rows, int(config.sample or 0), config.seed):
            _show(Console(highlight=False, stderr=config.summary), row)
    return int(config.validate and any(each.looked.missing or each.looked.unreadable or each.bad_rows for each in sets))


def _proposal(config: DataConfig) -> Proposal | None:
    """What to propose for a file with other column names; None for other sources, and where JSON is printed."""
    if config.source != "local" or config.path is None or config.summary:
        return None
    return proposal(_part(config))


def _part(config: DataConfig) -> Part:
    return Part(**{field.name: getattr(config, field.name) for field in fields(Part)})


def _look_for_bad_rows(sets: Sequence[_Set], model: str, report: Report) -> None:
    """Measure rows as a model reads them: all texts of a source, prompts of a benchmark.

    Raises UserError.
    """
    from align.batches.collators import AnyAnswers, Prompts
    from align.models.loading import load_without_weights
    from align.training.row_checks import Bounds, Checker, described, faults_of, measured

    loaded = load_without_weights(compose_model(model))
    for each in sets:
        checker = Checker((AnyAnswers if "source" in each.what else Prompts)(loaded.renderer))
        there = [row for row in each.looked.rows if not set(map(_name, row.images)) & set(each.looked.missing)]
        found = measured(checker, there, each.name, report)
        each.bad_rows = described(faults_of(there, found, Bounds(None, loaded.positions)))


def _name(image: ImageRef) -> str:
    return str(image.name)


def _sets(config: DataConfig, report: Report) -> Iterator[_Set]:
    if config.source is not None:
        read = read_source(_part(config), config.data_root)
        yield _Set({"source": config.source}, look(read.rows, report), _facts(read))
    for name, benchmark, rows, facts in _benchmarks(config):
        yield _Set({"benchmark": name}, look(rows, report), facts, benchmark.shared_prompts)


def _benchmarks(config: DataConfig) -> Iterator[tuple[str, Benchmark, list[Row], list[str]]]:
    names = benchmark_names(config.benchmark)
    # When a source is given too, path= and similar options belong to the source.
    short = ("path", "revision", "image_root", "columns", "role", "subset") if config.source is None else ()
    given = {key: getattr(config, key) for key in (*short, *OF_BENCHMARKS)}
    given["follow_links"] = (config.follow_links and config.source is None) or None
    evaluation = EvalConfig(benchmark=names, settings=config.settings, data_root=config.data_root, **given)
    for name in names:
        settings = settings_of(evaluation, name)
        benchmark = benchmark_of(name, settings)
        place = Place(f"settings.{name}") if config.source else Place(place_of(evaluation, name).section)
        with options_of(place):
            read = benchmark.every(settings)
            rows = select(benchmark, read.rows, settings)
        facts = [*_facts(read), *differences(benchmark, read.rows, settings.subset)]
        facts += [f"{benchmark.name}: only {narrowed}"] if (narrowed := narrowing(settings)) else []
        yield name, benchmark, rows, facts


def _facts(read: Read) -> list[str]:
    return [*read.facts, *([read.unread_images] if read.unread_images else [])]


def _in_common(trained: _Set, evaluated: _Set) -> dict[str, Any]:
    """Images (by pixels) and questions (by words) in both.

    Images that cannot be read are ignored.
    """
    records = [
        {
            "id": row.id,
            "question": question_hash(row),
            "images": [short_hash(str(trained.looked.pixels[image])) for image in _readable(trained.looked, row)],
        }
        for row in trained.looked.rows
    ]
    rows = [replace(row, images=_readable(evaluated.looked, row)) for row in evaluated.looked.rows]
    found: Overlap = find_overlap(index(records), rows, evaluated.shared_prompts)
    return {
        "source": trained.what["source"],
        **{
            kind: {"pairs": len(pairs), "first": [list(pair) for pair in pairs[:NAMED]]}
            for kind, pairs in (
                ("images", found.images),
                ("questions", found.questions),
                ("questions_over_other_images", found.over_others),
            )
        },
    }


def _readable(looked: Looked, row: Row) -> tuple[ImageRef, ...]:
    return tuple(image for image in row.images if isinstance(looked.pixels.get(image), str))


def _describe(console: Console, each: _Set, summary: dict[str, Any]) -> None:
    """Print a source or a benchmark in a few lines."""
    roles = ", ".join(f"{role} {count}" for role, count in summary["roles"].items() if count)
    harms = ", ".join(f"{place} {count}" for place, count in summary["harm_in"].items() if count)
    console.print(f"{each.name}: {summary['rows']:,} rows ({roles}; harm in {harms})", markup=False)
    console.print(
        f"  {summary['with_image']:,} with images, {summary['images']:,} different files; {summary['duplicates']:,} "
        "duplicate rows",
        markup=False,
    )
    categories = [f"{name} {count}" for name, count in summary["categories"].items()]
    if categories:
        console.print(f"  {len(categories)} categories: {', '.join(categories)}", markup=False, soft_wrap=True)
    if missing := each.looked.missing:
        console.print(f"  {len(missing):,} images are missing: {_first(missing)}", markup=False, soft_wrap=True)
        if unpack := not_unpacked(Path(missing[0])):
            console.print(f"  {unpack}", markup=False, soft_wrap=True)
    if unreadable := each.looked.unreadable:
        console.print(f"  {len(unreadable):,} images cannot be read:", markup=False)
        for error in unreadable[:NAMED]:
            console.print(f"    {error}", markup=False, soft_wrap=True)
    for line in each.bad_rows:
        console.print(f"  the model cannot use: {line}", markup=False, soft_wrap=True)
    for fact in each.facts:
        console.print(f"  {fact}", markup=False, soft_wrap=True)
    if "overlap" in summary:
        for kind in ("images", "questions", "questions_over_other_images"):
            pairs = summary["overlap"][kind]
            named = _first([f"{train} = {test}" for train, test in pairs["first"]], pairs["pairs"])
            of = f"  {kind.replace('_', ' ')} in common with source {summary['overlap']['source']}: {pairs['pairs']:,}"
            console.print(of + (f" ({named})" if named else ""), markup=False, soft_wrap=True)
    console.print(f"  fingerprint {summary['fingerprint']}", markup=False)


def _first(names: Sequence[str], total: int | None = None) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if (total or len(names)) > NAMED else "")


def _sample(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), min(n, len(rows))))]


def _show(console: Console, row: Row) -> None:
    """Print one row in full: texts are not truncated, since faults are often at the end."""
    of_row = [row.role, f"harm in {row.harm_in}", *([row.category] if row.category else [])]
    console.print(f"\n{row.id} ({', '.join(of_row)})", markup=False)
    texts = {
        name: getattr(row, name)
        for name in ("prompt", "request", "caption", "response", "chosen", "rejected", "harmful_response")
    }
    for name, text in texts.items():
        if text is not None:
            console.print(f"  {name}: {text}", markup=False, soft_wrap=True)
    for image in row.images:
        console.print(f"  image: {image.name or 'in memory'}, {_size(image)}", markup=False, soft_wrap=True)


def _size(image: ImageRef) -> str:
    try:
        width, height = image_size(image, "")
        return f"{width} x {height}"
    except UserError as error:
        return str(error).lstrip(": ")
