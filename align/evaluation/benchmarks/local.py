"""`local`: your own file, as for the source `local`."""

from __future__ import annotations

from align.data.local import read_file
from align.data.reading import Read
from align.evaluation.benchmark import Benchmark
from align.settings import BenchmarkSettings


def read(settings: BenchmarkSettings) -> Read:
    """The rows of the file at `path`. Raises UserError with file, row and column."""
    return read_file("benchmark=local", settings, settings.role or "harmful", answered=False)


LOCAL = Benchmark("local", "as its rows say", read, judges=("vlsbench",), own_file=True)
