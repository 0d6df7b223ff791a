"""MSSBench (arXiv 2410.06172): 600 chat and 380 embodied pairs of an unsafe and a safe image.

Files: combined.json or combine.json, chat/ and embodied/ (align/data/sources/mssbench.py). Version
2 of the paper counts 1,960 rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from align.data.files.folder import DataFolder
from align.data.sources.mssbench import HUB, TASKS, pairs
from align.evaluation.benchmark import Counts, published
from align.rows import Row


def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
    """Two rows for each pair, of one task or of both. Raises UserError."""
    for task in (subset,) if subset else TASKS:
        yield from pairs(folder, task)


COUNTS = {None: Counts(rows=1960), "chat": Counts(rows=1200), "embodied": Counts(rows=760)}
MSSBENCH = published("mssbench", "twin", rows, ("vlsbench",), COUNTS, hub=HUB)
