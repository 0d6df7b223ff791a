"""How a run spends its time: fields that are added to every log line with a loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from align.fast.supervised_head import Computed
from align.planning.spent import Spending, peak_of_device


class Throughput:
    """Measures since the last log line: the wait for rows, the computed tokens, and FLOP/s.

    `spending` returns the object that computes the FLOPs of a pass. It is called for the first
    line.
    """

    def __init__(self, spending: Callable[[], Spending]):
        self._spending = spending
        self._known: Spending | None = None
        self._begin()

    def _begin(self) -> None:
        self.begun = time.perf_counter()
        self.waited, self.padded = 0.0, 0

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches. Measures the wait for each batch."""
        while True:
            begun = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - begun
            self.padded += batch["input_ids"].numel()
            yield batch

    def line(self, passes: Sequence[Computed]) -> dict[str, float]:
        """Fields of a log line, for this process.

        `data_wait`: share of the time that steps waited for rows. `computed`: share of the padded
        tokens that were computed. `tflops`: TFLOP/s, with recomputed layers. `mfu`: model FLOPs
        utilization, without recomputed layers, if the device's peak is known.
        """
        seconds = max(time.perf_counter() - self.begun, 1e-9)
        self._known = self._known or self._spending()
        spent = self._known.of(passes)
        found = {"data_wait": self.waited / seconds, "tflops": spent.total / seconds / 1e12}
        if self.padded:
            found["computed"] = sum(one.rows * one.length for one in passes if one.is_policy) / self.padded
        if peak := peak_of_device():
            found["mfu"] = (spent.total - spent.recomputed) / seconds / peak
        self._begin()
        return found
