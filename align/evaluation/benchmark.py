"""The definition of a benchmark: rows, kind of rate, judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from align.data.files.folder import DataFolder
from align.data.hints import option
from align.data.reading import Read
from align.data.sampling import stratified
from align.errors import UserError
from align.rows import Row
from align.settings import BenchmarkSettings

LIMIT_ORDERS = ("sample", "first")
KINDS = ("vsil", "vsil_free", "benign", "ability", "twin")
SAFETY_KINDS = ("vsil", "vsil_free")


@dataclass(frozen=True)
class Counts:
    """Published sizes of a benchmark; None if not published."""

    rows: int | None = None
    images: int | None = None
    categories: int | None = None
    per_category: Mapping[str, int] = field(default_factory=dict)
    """{category: rows}"""
    whole: int | None = None
    """Rows of the whole data set, if the benchmark is a part of it."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    `read` takes the place of its files and returns every row; selection comes later.
    """

    name: str
    kind: str
    """vsil: the text shows that the request is harmful; vsil_free: only image and text together do;
    benign; ability; twin. Local files: `as its rows say`."""
    read: Callable[[BenchmarkSettings], list[Row] | Read]
    judges: tuple[str, ...]
    """The first is the main judge of the table; the others have their own tables."""
    shared_prompts: tuple[str, ...] = ()
    """Prompts that all items share (SafeBench's one sentence).

    They are ignored as a sign of overlap.
    """
    published: Mapping[str | None, Counts] = field(default_factory=dict)
    """{subset, None for all: published sizes}; a difference is reported."""
    part: Callable[[Row], bool] | None = None
    """Selects the benchmark's rows from a data set with rows of several kinds (a group in
    align/config/registry.py)."""
    own_file: bool = False
    """Whether `read` uses the settings `columns` and `role`."""

    def every(self, settings: BenchmarkSettings) -> Read:
        """Every row of the data set, and the reader's facts. Raises UserError."""
        for key in ("columns", "role") if not self.own_file else ():
            if getattr(settings, key):
                raise UserError(
                    f"benchmark {self.name}: {option(f'{key}=')} has no effect: its columns are those of its published "
                    f"files; remove {key}=, or read your own file with benchmark=local"
                )
        found = self.read(settings)
        return found if isinstance(found, Read) else Read(found)

    def own(self, rows: Sequence[Row]) -> list[Row]:
        """The benchmark's rows among the rows of its data set."""
        return [row for row in rows if self.part is None or self.part(row)]


def published(
    name: str,
    kind: str,
    rows: Callable[[DataFolder, str | None], Iterator[Row]],
    judges: tuple[str, ...],
    counts: Mapping[str | None, Counts],
    *,
    hub: str | None = None,
    files: Sequence[str] | None = None,
    shared_prompts: tuple[str, ...] = (),
    part: Callable[[Row], bool] | None = None,
) -> Benchmark:
    """Define a published benchmark. `rows` reads its files, for a subset in the keys of `counts`.

    `hub` is its id on the Hugging Face Hub, `files` are patterns of the files that it needs. `part`
    selects its rows if other benchmarks have the rest of the data set.
    """

    def read(settings: BenchmarkSettings) -> list[Row]:
        what = f"benchmark {name}"
        if settings.subset not in counts:
            known = ", ".join(str(subset) for subset in counts if subset is not None)
            expected = (
                f"expected {known}, or no subset="
                if known
                else f"the benchmark has no subsets. Select rows with {option('where.category=<category>')} or {option('limit=<number>')}"
            )
            raise UserError(f"{what}: {option(f'subset={settings.subset}')}: {expected}")
        folder = DataFolder.open(what, settings, hub, files)
        return [replace(row, source=name) for row in rows(folder, settings.subset)]

    return Benchmark(name, kind, read, judges, shared_prompts, counts, part)


def differences(benchmark: Benchmark, every: Sequence[Row], subset: str | None) -> list[str]:
    """Lines on differences from published sizes, and on rows without text."""
    counts = benchmark.published.get(subset)
    if counts is None:
        return []
    rows = benchmark.own(every)
    found = {
        "rows": len(rows),
        "images": len({image.name or image.bytes for row in rows for image in row.images}),
        "categories": len({row.category for row in rows}),
    }
    of_set = f"{benchmark.name} {subset}" if subset else benchmark.name
    lines = [
        f"{of_set}: {found[what]} {what} found, {count} are published"
        for what in found
        if (count := getattr(counts, what)) is not None and count != found[what]
    ]
    if counts.whole not in (None, len(every)):
        lines.append(f"{of_set}: {len(every)} rows found in the whole data set, {counts.whole} are published")
    if unlike := _unlike(counts.per_category, Counter(str(row.category) for row in rows)):
        lines.append(f"{of_set}: rows of a category found (published): {', '.join(unlike)}")
    if empty := [row.id for row in rows if not row.prompt.strip()]:
        lines.append(f"{of_set}: {len(empty)} rows have no text, first {empty[0]}")
    return lines


def _unlike(published: Mapping[str, int], found: Counter[str]) -> list[str]:
    categories = sorted({*published, *found}) if published else []
    return [
        f"{category} {found[category]} ({published.get(category, 0)})"
        for category in categories
        if found[category] != published.get(category, 0)
    ]


def select(benchmark: Benchmark, rows: list[Row], settings: BenchmarkSettings) -> list[Row]:
    """The benchmark's rows that `where` and `limit` keep.

    Raises UserError for an unknown column, or if no row is left.
    """
    rows = benchmark.own(rows)
    for column, wanted in settings.where.items():
        values = {str(value) for value in (wanted if isinstance(wanted, list) else [wanted])}
        lacking = next((row for row in rows if not hasattr(row, column) and column not in row.columns), None)
        if lacking is not None:
            known = ", ".join(["category", *lacking.columns])
            raise UserError(
                f"benchmark {benchmark.name}: {option(f'where.{column}')}: row {lacking.id} has no such column. Its "
                f"columns: {known}"
            )
        # The benchmark's own column first: VLSBench has a column `source`, and so has every row.
        found = [str(row.columns.get(column, getattr(row, column, None))) for row in rows]
        if absent := sorted(values - set(found)):
            there = ", ".join(list(dict.fromkeys(found))[:10])
            raise UserError(
                f"benchmark {benchmark.name}: {option(f'where.{column}')}: no row has {', '.join(absent)}. Found: "
                f"{there}"
            )
        rows = [row for row, value in zip(rows, found, strict=True) if value in values]
    # An item of a twin benchmark is a pair of rows.
    rows = limited(f"benchmark {benchmark.name}", rows, settings, 2 if benchmark.kind == "twin" else 1)
    if not rows:
        raise UserError(f"benchmark {benchmark.name}: where={settings.where}, limit={settings.limit} leave no rows")
    return rows


def limited(
    what: str,
    rows: list[Row],
    settings: BenchmarkSettings,
    of_item: int = 1,
    first: Callable[[Row], Hashable] | None = None,
) -> list[Row]:
    """`limit` items of `of_item` rows each; `first` as in `stratified`.

    Raises UserError for invalid settings.
    """
    if settings.limit_order not in LIMIT_ORDERS:
        raise UserError(
            f"{what}: {option(f'limit_order={settings.limit_order}')}: expected {' or '.join(LIMIT_ORDERS)}"
        )
    if settings.limit is None:
        return rows
    asked = f"{what}: {option(f'limit={settings.limit}')}"
    if settings.limit < 1:
        raise UserError(f"{asked}: expected at least 1")
    n = settings.limit * of_item
    if settings.limit_order == "first":
        return rows[:n]
    instead = f", or set {option('limit_order=first')} to take the first"
    return stratified(rows, n, settings.limit_seed, asked, instead, first)


def kind_of(rows: list[Row], name: str, mixed: bool = False) -> str:
    """The kind of rows, by role and place of harm; for several kinds "mixed", or UserError."""
    kinds = {"benign" if row.role == "benign" else "vsil_free" if row.harm_in == "image" else "vsil" for row in rows}
    if len(kinds) != 1 and mixed:
        return "mixed"
    if len(kinds) != 1:
        raise UserError(
            f"benchmark {name}: its rows are of several kinds ({', '.join(sorted(kinds))}), which need separate rates. "
            f"Select one kind: {option('where.role=benign')}, or {option('where.role=harmful')} with "
            f"{option('where.harm_in=image')} (or text)"
        )
    return kinds.pop()


def check_twins(benchmark: Benchmark, rows: list[Row]) -> None:
    """Raises UserError if a pair of a twin benchmark lacks its unsafe or its safe half."""
    if benchmark.kind != "twin":
        return
    pairs: dict[str, list[str]] = {}
    for row in rows:
        pairs.setdefault(str(row.twin), []).append(row.role)
    broken = [twin for twin, roles in pairs.items() if sorted(roles) != ["benign", "harmful"]]
    if broken:
        raise UserError(
            f"benchmark {benchmark.name}: {len(broken)} twins lack their unsafe or their safe half, first {broken[0]!r}"
        )
