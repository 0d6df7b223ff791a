"""The property that no damage to a data set passes in silence, and how many cases of it ended in
which way.

A case is a layout, a form (a folder, an archive, images in an archive beside) and some damages.
`check` makes the set, damages it, reads it as training and evaluation do, decodes every image, and
says what came of it: an error, a counted drop, the same rows, or honestly other ones. Whatever else
is an AssertionError. `python -m tests.support.damage 10000` prints the table.
"""

from __future__ import annotations

import math
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from hypothesis import HealthCheck, given, settings

from align.data.assembly import read_source
from align.data.images import drop_missing, load_image
from align.data.overlap import text_hash
from align.errors import UserError
from align.evaluation.benchmarks.safebench import PROMPT
from align.evaluation.selection import select_rows
from align.rows import Row
from align.settings import BenchmarkSettings, Part
from tests.support.broken_set import CANARY_COLOUR, Broken
from tests.support.damages import DAMAGES, Case, cases
from tests.support.opened_files import nothing_opened
from tests.support.set_files import decoded
from tests.support.small_sets import LAYOUTS, Layout

SECONDS = 20.0
"""A case that takes longer counts as one that hangs."""

ERROR, COUNTED, SAME, OTHER = "named error", "counted drop", "unchanged", "honestly other"
LACKING = re.compile(r"(\d+) of (\d+) rows lack their image")


def read(layout: Layout, path: Path) -> tuple[list[Row], list[str], int]:
    """Rows whose images are there, the facts, and how many rows were counted as lacking theirs. Raises UserError."""
    if layout.benchmark:
        chosen = select_rows(layout.name, "image", BenchmarkSettings(path=str(path), on_missing_image="drop"))
        lacking = [int(found[1]) for fact in chosen.facts if (found := LACKING.search(fact))]
        return chosen.items, chosen.facts, sum(lacking)
    part = Part(**({"source": layout.name.split()[0], "path": str(path)} | layout.settings))
    part.role = "benign" if part.source == "local" else None
    found = read_source(part)
    rows, facts = found.rows, found.facts
    kept, fact = drop_missing(rows, "drop", "data.x")
    if fact is None:
        assert len(kept) == len(rows)
        return kept, facts, 0
    lacking, of = map(int, LACKING.search(fact).groups())  # type: ignore[union-attr]
    assert (of, len(kept)) == (len(rows), len(rows) - lacking), f"{fact}, of {len(rows)} {len(kept)} are kept"
    return kept, facts, lacking


def texts(row: Row) -> list[str]:
    """Every text that a row has of its set."""
    held = (
        row.prompt,
        row.response,
        row.chosen,
        row.rejected,
        row.harmful_response,
        row.caption,
        row.category,
        row.request,
    )
    return [text for text in held if text is not None]


def _told(rows: list[Row], pixels: list[list[bytes]]) -> list[Any]:
    return [(row.id, row.role, row.harm_in, texts(row), shown) for row, shown in zip(rows, pixels, strict=True)]


@cache
def _undamaged(layout: str) -> tuple[list[Any], list[str]]:
    with tempfile.TemporaryDirectory() as name:
        path = Broken(Case(layout, "folder", ()), Path(name)).make()
        rows, facts, _ = read(LAYOUTS[layout], path)
        return _told(rows, [[_pixels(image) for image in row.images] for row in rows]), facts


def _pixels(image: Any) -> bytes:
    shown = np.asarray(load_image(image, "row x"))
    return f"{shown.shape}".encode() + shown.tobytes()


def check(case: Case, root: Path) -> str:
    """What came of a damaged set. Raises AssertionError where something passed in silence."""
    layout, broken = LAYOUTS[case.layout], Broken(case, root)
    path = broken.make()
    began = time.monotonic()
    try:
        with nothing_opened(root / "outside"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows, facts, lacking = read(layout, path)
            pixels = [[_pixels(image) for image in row.images] for row in rows]
    except UserError as error:
        _check_error(str(error), case, broken, path)
        return ERROR
    finally:
        assert time.monotonic() - began < SECONDS, f"{time.monotonic() - began:.0f} s"
    told = _told(rows, pixels)
    before, facts_before = _undamaged(case.layout)
    if not broken.loose:
        _check_rows(layout, broken, rows, facts, lacking)
        _check_pixels(broken, rows, pixels)
    else:  # the container is damaged: what still comes out of it is what was put in
        _check_rows(layout, broken, rows, facts, lacking)
        if broken.unsure:
            return OTHER
        known = {shown for of_row in pixels for shown in of_row} - {_as_told(shown) for shown in broken.shown.values()}
        assert not known, "pixels that no image of the set has"
    assert all(bytes(CANARY_COLOUR) * 4 not in shown for of_row in pixels for shown in of_row)
    if told == before and facts == facts_before:
        return SAME
    left_out = [fact for fact in facts if fact not in facts_before]
    return COUNTED if lacking > _lacking_before(layout) or left_out else OTHER


def _lacking_before(layout: Layout) -> int:
    return 1 if layout.name == "vlguard" else 0


def _as_told(shown: np.ndarray | None) -> bytes:
    return b"" if shown is None else f"{shown.shape}".encode() + shown.tobytes()


def _check_error(said: str, case: Case, broken: Broken, path: Path) -> None:
    """The message names the file and, where one record alone was damaged, its row."""
    assert len(said) < 5000, f"a message of {len(said)} characters"
    names = {str(path), *(Path(name).name for name in [*broken.values, *broken.files])}
    assert any(name in said for name in names), f"no file is named: {said}"
    if len(case.damages) == 1 and case.damages[0][0] in ("value", "path"):
        of_all = (
            "no rows in",
            "none of the",
            "subset=",
            "cannot be read",
            "cannot be read after row",
            " frames",
            "at most",
            "lack their image",
        )
        assert re.search(r"row \d+", said) or any(part in said for part in of_all), f"no row is named: {said}"


def _check_rows(layout: Layout, broken: Broken, rows: list[Row], facts: list[str], lacking: int) -> None:
    """Every record is a row or counted, and every text is one that stands in the files."""
    files = [decoded(index, content) for index, content in broken.held.items()]
    counted = len(rows) + lacking
    if layout.name.startswith("pku"):
        pairs, prompts, chosen = map(
            int, re.match(r"(\d+) pairs of (\d+) different prompts, (\d+) of them", facts[0]).groups()
        )  # type: ignore[union-attr]
        left_out = int(facts[1].split()[0]) if len(facts) > 1 else 0
        # A file whose name is damaged in the archive is one that is not there, and the pairs say so.
        selections = [files, *([file] for file in files)] if broken.loose else [files]
        records = [record for file in files for record in file]
        assert (pairs, prompts) in [_pairs_and_prompts(selection) for selection in selections]
        assert chosen == counted + left_out
    else:
        records = [record for file in files for record in file]
        left_out = int(facts[0].split()[0]) if layout.name == "alpaca" and facts else 0
        assert layout.rows_of(records) == counted + left_out, (
            f"{layout.rows_of(records)} records, {counted} + {left_out}"
        )
    assert len({row.id for row in rows}) == len(rows), "an id twice"
    leaves = {text for record in records for text in _leaves(record)} | {PROMPT, ""}
    if layout.name == "conversations":
        leaves |= {leaf.replace("<image>", "").strip() for leaf in leaves}
    if layout.name == "alpaca":
        leaves |= {f"{record['instruction']}\n{record.get('input')}" for record in records}
    for row in rows:
        for text in texts(row):
            text.encode()
            assert text in leaves, f"{text[:80]!r} stands nowhere in the files"
    if layout.kept and not lacking and not left_out:
        for record, row in zip(records, rows, strict=True):
            _check_kept(layout, record, row)


def _pairs_and_prompts(files: list[list[Any]]) -> tuple[int, int]:
    asked = [text_hash(record["prompt"]) for records in files for record in records]
    return len(asked), len(set(asked))


def _check_kept(layout: Layout, record: dict[str, Any], row: Row) -> None:
    """What a record says the row says, and what it says not the row does not make up."""
    for column, name in layout.kept.items():
        given, became = record.get(column), getattr(row, name)
        if given in (None, ""):
            assert name in ("id", "role") or became in (None, ""), f"{column}: {given!r} became {became!r}"
        elif not (name == "id" and became.startswith(str(given))):  # a second one of that name has a number
            assert became == given, f"{column}: {given!r} became {became!r}"
    shown = [record[column] for column in ("image", "image_path") if record.get(column) not in (None, "", [])]
    assert not shown or row.images, f"the image {shown[0]!r} is gone"


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _leaves(item)


def _check_pixels(broken: Broken, rows: list[Row], pixels: list[list[bytes]]) -> None:
    """An image is what it stands for; of parquet's cells, of which some may be damaged bytes, at
    least one of those of the set.
    """
    for row, of_row in zip(rows, pixels, strict=True):
        for image, shown in zip(row.images, of_row, strict=True):
            name = str(image.name).replace("::", "/")
            own = [file for file in broken.shown if name.endswith(f"/{file}")]
            own = own or [file for file in broken.shown if name.endswith(f"/{Path(file).name}") and ".tar/" in name]
            if broken.unsure and (not own or own[0] in broken.unsure):
                continue
            expected = [broken.shown[own[0]]] if own else list(broken.shown.values())
            assert shown in [_as_told(each) for each in expected], f"{name}: not the pixels that it stands for"


def explore(kind: str, n: int, same: bool) -> Counter[str]:
    """Check `n` cases of a kind, always the same ones or others each time. How many ended in which way."""
    ended: Counter[str] = Counter()

    @settings(
        max_examples=n,
        derandomize=same,
        database=None,
        deadline=None,
        print_blob=not same,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(case=cases(kind))
    def damaged(case: Case) -> None:
        with tempfile.TemporaryDirectory() as name:
            ended[check(case, Path(name).resolve())] += 1

    damaged()
    return ended


def table(found: dict[str, Counter[str]]) -> str:
    """How many cases of each kind ended in which way."""
    ways = (ERROR, COUNTED, SAME, OTHER)
    lines = [("damage", *ways, "cases")]
    lines += [(kind, *(str(ended[way]) for way in ways), str(ended.total())) for kind, ended in found.items()]
    total = sum(found.values(), Counter())
    lines.append(("all", *(str(total[way]) for way in ways), str(total.total())))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]
        )
        for cells in lines
    )


if __name__ == "__main__":
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        datasets.config.HF_DATASETS_CACHE = Path(name)
        share = math.ceil(int(sys.argv[1]) / len(DAMAGES))
        print(table({kind: explore(kind, share, same=False) for kind in DAMAGES}))
