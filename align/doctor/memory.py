"""Whether a run fits into the memory of this machine, as `align plan` estimates it."""

from __future__ import annotations

from collections.abc import Sequence

from align.config.merge import Composed
from align.doctor.check import BROKEN, OK, WARNING, Check
from align.doctor.machine import Device, gib
from align.errors import UserError
from align.models.presence import folder_of
from align.settings import PlanSettings, RunConfig

ON_CPU = 1.0
"""GiB for Python and its libraries in a process; a plan's own reserve is for CUDA and NCCL."""


def memory(composed: Composed, gpus: Sequence[Device]) -> Check:
    """The run's need on each device against what is free there."""
    import psutil

    from align.planning.estimate import estimate
    from align.planning.skeleton import NAMED

    config: RunConfig = composed.config
    path = config.model.path
    if not path:
        return Check("memory", OK, f"{config.model.name} is built when the run starts; its size is not known before")
    if folder_of(path, config.model.revision) is None and path not in NAMED:
        return Check("memory", WARNING, "not estimated, since the model's config.json is not here", "align fetch")
    processes = config.num_processes or max(len(gpus), 1)
    assumed = PlanSettings(gpus=[processes]) if gpus else PlanSettings(gpus=[processes], reserve=ON_CPU)
    try:
        [on] = estimate(composed, assumed).launched
    except UserError as error:
        return Check("memory", WARNING, f"not estimated: {error}")
    launch, needed = min(((launch, int(of.total)) for launch, of in on.memory.items()), key=lambda each: each[1])
    if gpus:
        free, where = min(gpu.free for gpu in gpus), f"on each of {processes} GPUs with {launch}"
    else:
        free, where = psutil.virtual_memory().available // processes, f"in each of {processes} processes"
    found = f"about {gib(needed)} needed {where}, {gib(free)} free (align plan shows what it is for)"
    if needed <= free:
        return Check("memory", OK, found)
    todo = "model.quantization=nf4, LoRA instead of lora=null, a smaller model, or more and larger devices"
    return Check("memory", BROKEN, found, todo)
