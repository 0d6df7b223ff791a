"""VLGuard's test set (arXiv 2402.02207): 442 unsafe images, 558 safe ones, two prompts each.

A safe image has an unsafe and a safe instruction. Files: test.json and test/
(align/data/sources/vlguard.py). There is a benchmark for each kind of pair, under its published
name.
"""

from __future__ import annotations

from collections.abc import Iterator

from align.data.files.folder import DataFolder
from align.data.sources.vlguard import FILES, HUB, pairs
from align.evaluation.benchmark import Benchmark, Counts, published
from align.rows import Row


def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Every pair of the test set, of all three kinds. Raises UserError."""
    return pairs(folder, "test", answered=False)


def _benchmark(pair: str, kind: str, judges: tuple[str, ...], count: int) -> Benchmark:
    return published(
        f"vlguard_{pair}",
        kind,
        rows,
        judges,
        counts={None: Counts(rows=count)},
        hub=HUB,
        files=FILES["test"],
        part=lambda row: row.columns["kind"] == pair,
    )


VLGUARD_UNSAFES = _benchmark("unsafes", "vsil_free", ("vlsbench",), 442)
VLGUARD_SAFE_UNSAFES = _benchmark("safe_unsafes", "vsil", ("vlsbench", "llamaguard"), 558)
VLGUARD_SAFE_SAFES = _benchmark("safe_safes", "benign", ("vlsbench",), 558)
