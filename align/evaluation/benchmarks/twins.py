"""Your own file of twins as benchmarks: leaky, leak-free and benign requests, and pairs."""

from __future__ import annotations

from align.data.twins import read_twins, rows_of
from align.evaluation.benchmark import Benchmark
from align.rows import Row
from align.settings import BenchmarkSettings


def _benchmark(name: str, kind: str, subset: str) -> Benchmark:
    def read(settings: BenchmarkSettings) -> list[Row]:
        twins = read_twins(f"benchmark={name}", settings, trained=False)
        return [row for twin in twins for row in rows_of(twin, subset)]

    return Benchmark(name, kind, read, judges=("vlsbench",))


TWINS = _benchmark("twins", "twin", "pairs")
TWINS_VSIL = _benchmark("twins_vsil", "vsil", "leak")
TWINS_VSIL_FREE = _benchmark("twins_vsil_free", "vsil_free", "free")
TWINS_BENIGN = _benchmark("twins_benign", "benign", "benign")
