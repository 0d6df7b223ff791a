"""Checks of devices, memory, free disk space, and whether tokens are set (never their values)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from align.devices import usable_processors
from align.doctor.check import MISSING, OK, WARNING, Check
from align.files import cache_folder
from align.models import presence

GIB = 1 << 30


@dataclass
class Device:
    """One GPU."""

    name: str
    free: int
    total: int
    """Bytes."""
    capability: str
    bf16: bool
    """Whether the hardware supports bf16 without emulation."""


def gib(size: int) -> str:
    """Bytes as text in GiB."""
    return f"{size / GIB:,.1f} GiB"


def devices() -> list[Device]:
    """GPUs visible to torch."""
    import torch

    found = []
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(i)
        capability = ".".join(map(str, torch.cuda.get_device_capability(i)))
        with torch.cuda.device(i):
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        found.append(Device(torch.cuda.get_device_name(i), free, total, capability, bf16))
    return found


def device_checks(gpus: list[Device]) -> Iterator[Check]:
    """Check the processor and each GPU; warn if a CUDA build of torch sees no GPU."""
    import psutil
    import torch

    memory = psutil.virtual_memory()
    yield Check("cpu", OK, f"{usable_processors()} cores, memory {gib(memory.available)} free of {gib(memory.total)}")
    for i, gpu in enumerate(gpus):
        found = f"{gpu.name}, memory {gib(gpu.free)} free of {gib(gpu.total)}, compute capability {gpu.capability}"
        if gpu.bf16:
            yield Check(f"cuda:{i}", OK, f"{found}, bf16")
        else:
            yield Check(
                f"cuda:{i}", WARNING, f"{found}, no bf16", "model.dtype=float16 train.bf16=false train.fp16=true"
            )
    if not gpus and torch.version.cuda:
        yield Check(
            "gpu",
            WARNING,
            f"no GPU is visible, although torch is built for CUDA {torch.version.cuda}, so runs use the CPU",
            "on a GPU node, check nvidia-smi (the driver) and CUDA_VISIBLE_DEVICES",
        )
    elif not gpus:
        yield Check("gpu", OK, "no GPU: runs use the CPU in float32, which is enough for the miniature")


def disk_checks(output_dir: str | None, needs: dict[str, int]) -> Iterator[Check]:
    """Check free space for runs, the Hub cache and align's cache.

    `needs` is {name: bytes needed}.
    """
    places = {
        "disk output_dir": Path(output_dir or "runs"),
        "disk HF_HOME": presence.cache(),
        "disk XDG_CACHE_HOME": cache_folder(""),
    }
    for name, folder in places.items():
        there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        free, needed = shutil.disk_usage(there).free, needs.get(name, 0)
        found = f"{gib(free)} free at {folder}" + (f", {gib(needed)} needed" if needed else "")
        if not os.access(there, os.W_OK):
            yield Check(name, MISSING, f"no write permission for {there}", f"choose another folder ({name.split()[1]})")
        elif free < needed:
            yield Check(name, WARNING, found, f"free some space, or choose another folder ({name.split()[1]})")
        else:
            yield Check(name, OK, found)


def token_checks(needed: Iterable[str] = ()) -> Iterator[Check]:
    """Check whether tokens are set; `needed` are the variables of a run's keys."""
    from huggingface_hub import get_token

    yield Check(
        "token HF_TOKEN",
        OK,
        "set" if get_token() else "not set",
        "" if get_token() else "needed only for gated models",
    )
    wanted = list(dict.fromkeys(needed))
    for name in dict.fromkeys(["WANDB_API_KEY", *wanted]):
        if os.environ.get(name, "").strip():
            yield Check(f"token {name}", OK, "set")
        elif name in wanted:
            yield Check(f"token {name}", MISSING, "not set, but this run needs it", f"export {name}=...")
        else:
            yield Check(
                f"token {name}", OK, "not set", "needed only for train.report_to=wandb, unless you ran `wandb login`"
            )
