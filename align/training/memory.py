"""Peak memory of a run."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import torch


def reset_peak_memory() -> None:
    """Start a new measurement.

    Otherwise a process that trains several runs reports the largest peak for each.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    # On Linux, writing 5 resets the peak of resident memory. Other systems report the peak of the
    # whole process.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib() -> int:
    """Peak device memory on a GPU, otherwise peak resident memory of the process, in MiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    with contextlib.suppress(OSError, StopIteration, ValueError):
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
