"""`local`: any jsonl, parquet or csv file of requests, in the columns of the source of that name, as an evaluation set."""

from __future__ import annotations

from align.data.local import read_file
from align.evaluation.benchmark import Benchmark
from align.rows import Row
from align.settings import BenchmarkSettings


def read(settings: BenchmarkSettings) -> list[Row]:
    """The rows of the file at `path`. Raises UserError that names file, row and column."""
    return read_file("benchmark=local", settings, role="harmful", answered=False)


LOCAL = Benchmark("local", "as its rows say", read, judges=("vlsbench",))
