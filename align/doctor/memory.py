"""Check whether a run fits into the memory of this machine, by the estimate of `align plan`."""

from __future__ import annotations

from collections.abc import Sequence

from align.config.merge import Composed
from align.doctor.check import BROKEN, OK, WARNING, Check
from align.doctor.machine import Device, gib
from align.errors import UserError
from align.models.presence import folder_of
from align.settings import PlanSettings, RunConfig

ON_CPU = 1.0
"""GiB for Python and its libraries in a process; the reserve of a plan is for CUDA and NCCL."""


def memory(composed: Composed, gpus: Sequence[Device]) -> Check:
    """Compare the memory that the run needs on each device with the free memory."""
    import psutil

    from align.planning.estimate import estimate
    from align.planning.skeleton import NAMED

    config: RunConfig = composed.config
    path = config.model.path
    if not path:
        return Check("memory", OK, f"{config.model.name} is built when the run starts, so its size is not known yet")
    if folder_of(path, config.model.revision) is None and path not in NAMED:
        return Check("memory", WARNING, "not estimated, because the model's config.json is not here", "align fetch")
    processes = config.num_processes or max(len(gpus), 1)
    assumed = PlanSettings(gpus=[processes]) if gpus else PlanSettings(gpus=[processes], reserve=ON_CPU)
    try:
        [on] = estimate(composed, assumed).launched
    except UserError as error:
        return Check("memory", WARNING, f"not estimated: {error}")
    launch, needed = min(((launch, int(of.total)) for launch, of in on.memory.items()), key=lambda each: each[1])
    if gpus:
        free, where = min(gpu.free for gpu in gpus), f"on each GPU (GPUs: {processes}, launch: {launch})"
    else:
        free, where = psutil.virtual_memory().available // processes, f"in each process (processes: {processes})"
    found = f"about {gib(needed)} needed {where}, {gib(free)} free (details: align plan)"
    if needed <= free:
        return Check("memory", OK, found)
    todo = "model.quantization=nf4, LoRA instead of lora=null, a smaller model, or more and larger devices"
    return Check("memory", BROKEN, found, todo)
