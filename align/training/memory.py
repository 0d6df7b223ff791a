"""Peak memory of a run."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import torch


def reset_peak_memory() -> None:
    """Begin a new measurement; a process that trains several runs must not report the largest of them for each."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    # Linux: 5 resets the high-water mark of resident memory. Elsewhere the mark stays that of the process.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib() -> int:
    """Peak device memory where there is a GPU, else peak resident memory of the process, in MiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    with contextlib.suppress(OSError, StopIteration, ValueError):
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
