"""The miniature's benchmarks."""

from __future__ import annotations

from align.errors import UserError
from align.evaluation.benchmark import Benchmark
from align.miniature.rows import evaluation_rows
from align.rows import Row
from align.settings import BenchmarkSettings

ROWS = 200
"""Rows of a benchmark; the twin benchmark has half as many pairs."""


def _benchmark(kind: str, judges: tuple[str, ...], n: int = ROWS) -> Benchmark:
    def read(settings: BenchmarkSettings) -> list[Row]:
        # subset=validation: rows for tuning settings; they are never reported.
        if settings.subset not in (None, "validation", "test") or settings.path:
            raise UserError(f"benchmark=mini_{kind}: subset= is test (default) or validation; there is no path=")
        return evaluation_rows(kind, n, settings.subset or "test")

    return Benchmark(f"mini_{kind}", kind, read, judges)


MINI_VSIL = _benchmark("vsil", ("rule", "refusal_match"))
MINI_VSIL_FREE = _benchmark("vsil_free", ("rule", "refusal_match"))
MINI_BENIGN = _benchmark("benign", ("rule",))
MINI_TWIN = _benchmark("twin", ("rule",), ROWS // 2)
MINI_ABILITY = _benchmark("ability", ("rule",))
