"""How a run spends its time, beside every loss that it logs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any


class Pace:
    """Since the last line of the log: how long steps waited for their rows, and how many of their tokens were computed."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Count anew."""
        self.begun = time.perf_counter()
        self.waited, self.padded, self.computed = 0.0, 0, 0

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches; waiting for one counts."""
        while True:
            begun = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - begun
            yield batch

    def count(self, batch: dict[str, Any]) -> None:
        """One more forward pass of the policy."""
        padded = batch["input_ids"]
        self.padded += padded.numel()
        self.computed += batch.get("layout", {}).get("input_ids", padded).numel()

    def line(self) -> dict[str, float]:
        """`data_wait`: share of the time that was spent waiting for rows; `computed`: share of the padded tokens that was computed."""
        found = {"data_wait": self.waited / max(time.perf_counter() - self.begun, 1e-9)}
        if self.padded:
            found["computed"] = self.computed / self.padded
        self.begin()
        return found
