"""vLLM's environment: its interpreter, its versions, and the variables and devices of each child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from typing import Any

from align.devices import has_gpu, usable_processors
from align.errors import UserError
from align.settings import Vllm, VllmProcess

ASKED = """
import importlib.util, json
from importlib.metadata import PackageNotFoundError, packages_distributions, version
found = {}
if importlib.util.find_spec("vllm"):
    for name in ("vllm", "torch", "transformers", "torchvision"):
        try:
            found[name] = version(packages_distributions().get(name, [name])[0])
        except PackageNotFoundError:
            found[name] = None
print(json.dumps(found))
"""
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables of this process that another environment, or another process group, must not have."""
ONE_PROCESS = "VLLM_ENABLE_V1_MULTIPROCESSING"
"""0: vLLM computes in the process that asks it; its server cannot."""
ALWAYS = {
    ONE_PROCESS: "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",  # the files are here; nothing is looked up
}
ON_CPU = {"VLLM_CPU_CI_ENV": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def interpreter(settings: VllmProcess) -> str:
    """The interpreter that has vLLM."""
    return settings.python or os.environ.get("VSIL_ALIGN_VLLM_PYTHON") or sys.executable


@cache
def versions_of(
    python: str, asked_by: str = "generation.engine=vllm", section: str = "generation.vllm"
) -> dict[str, Any]:
    """{package: version} of vLLM and what it computes with.

    Raises UserError that names the settings if vLLM is not installed there.
    """
    try:
        asked = subprocess.run(
            [python, "-c", ASKED], capture_output=True, text=True, timeout=120, env=_environment(), check=True
        )
        found: dict[str, Any] = json.loads(asked.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise UserError(f"{section}.python={python}: this is no working Python interpreter: {error}") from error
    if not found:
        raise UserError(
            f"{asked_by}: {python} has no package vllm; install vLLM in an environment of its own, and give "
            f"{section}.python=<its interpreter> (docs/vllm.md)"
        )
    return found


def is_available(settings: Vllm) -> bool:
    """Whether vLLM is installed and there is a GPU."""
    if not has_gpu():
        return False
    try:
        return bool(versions_of(interpreter(settings)))
    except UserError:
        if settings.python is not None:
            raise
        return False


def of_machine(settings: VllmProcess) -> dict[str, Any]:
    """Arguments of vLLM that belong to the machine."""
    if has_gpu():
        cache = settings.kv_cache_gib
        known: dict[str, Any] = {"gpu_memory_utilization": settings.gpu_memory_utilization}
    else:
        cache = settings.kv_cache_gib or 1.0  # otherwise it takes a share of the main memory
        known = {"enforce_eager": True}
    return known | ({"kv_cache_memory_bytes": int(cache * 2**30)} if cache is not None else {})


def environments(settings: Vllm) -> list[dict[str, str]]:
    """The variables of each child process: its devices, and its threads. Raises UserError."""
    size, copies = settings.tensor_parallel_size, settings.data_parallel_size
    if size < 1 or (copies is not None and copies < 1):
        raise UserError(
            f"generation.vllm.tensor_parallel_size={size}, .data_parallel_size={copies}: expected at least 1"
        )
    if not has_gpu():
        if size > 1:
            raise UserError(f"generation.vllm.tensor_parallel_size={size}: this machine has no GPU; expected 1")
        threads = str(max(usable_processors() // (copies or 1), 1))
        return [_environment() | ON_CPU | {"OMP_NUM_THREADS": threads} for _ in range(copies or 1)]
    gpus = _visible_gpus()
    copies = copies or max(len(gpus) // size, 1)
    if size * copies > len(gpus):
        raise UserError(
            f"generation.vllm.tensor_parallel_size={size}, .data_parallel_size={copies}: they need {size * copies} GPUs, "
            f"and this machine has {len(gpus)}"
        )
    shares = [gpus[i * size : (i + 1) * size] for i in range(copies)]
    return [_environment() | {"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]


def environment_of_process(settings: Vllm, local_rank: int) -> dict[str, str]:
    """The variables of a child process next to one training process, on the same GPU. Raises UserError."""
    if settings.tensor_parallel_size != 1 or settings.data_parallel_size not in (None, 1):
        raise UserError(
            "generation.vllm.tensor_parallel_size, .data_parallel_size: each training process has a vLLM of its own for "
            "rollouts, on its own GPU; remove them"
        )
    if not has_gpu():
        return _environment() | ON_CPU | {"OMP_NUM_THREADS": str(os.environ.get("OMP_NUM_THREADS", 1))}
    return _environment() | {"CUDA_VISIBLE_DEVICES": _visible_gpus()[local_rank]}


def served_environment(settings: VllmProcess, section: str) -> dict[str, str]:
    """The variables of a server, which uses the first GPUs. Raises UserError."""
    if not has_gpu():
        return _environment(server=True) | ON_CPU | {"OMP_NUM_THREADS": str(usable_processors())}
    gpus = _visible_gpus()
    if settings.tensor_parallel_size > len(gpus):
        raise UserError(
            f"{section}.tensor_parallel_size={settings.tensor_parallel_size}: this machine has {len(gpus)} GPUs"
        )
    return _environment(server=True) | {"CUDA_VISIBLE_DEVICES": ",".join(gpus[: settings.tensor_parallel_size])}


def _visible_gpus() -> list[str]:
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


def _environment(server: bool = False) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in OURS}
    return kept | {key: value for key, value in ALWAYS.items() if not (server and key == ONE_PROCESS)}
