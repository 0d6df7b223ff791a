"""Available devices."""

from __future__ import annotations

import os


def has_gpu() -> bool:
    """Whether a GPU is available and the launcher allows it (`use_cpu` of an accelerate configuration)."""
    import torch

    asked_for_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return torch.cuda.is_available() and not asked_for_cpu


def usable_processors() -> int:
    """Number of processors that this process may use; fewer than the machine has under SLURM or `taskset`."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
