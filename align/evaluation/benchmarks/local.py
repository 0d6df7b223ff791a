"""`local`: any jsonl, parquet or csv file of requests, in the columns of the source of that name, as an evaluation set."""

from __future__ import annotations

from align.data.local import read_file
from align.data.reading import Read
from align.evaluation.benchmark import Benchmark
from align.settings import BenchmarkSettings


def read(settings: BenchmarkSettings) -> Read:
    """The rows of the file at `path`. Raises UserError that names file, row and column."""
    return read_file("benchmark=local", settings, role="harmful", answered=False)


LOCAL = Benchmark("local", "as its rows say", read, judges=("vlsbench",))
