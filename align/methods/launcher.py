"""What the launcher asked for, and whether it is what runs: accelerate falls back to something smaller in silence.

`accelerate launch --cpu --num_processes 2` runs two worlds of one; FSDP on a CPU, and DeepSpeed told to use one, become plain data
parallelism. Each trains something else than was asked for, or the same several times over.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from align.errors import UserError


def world_size() -> int:
    """How many processes the launcher started: its word, since asking accelerate would settle its state too early."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def sharding() -> str | None:
    """How the launcher divides a model among processes: DEEPSPEED, FSDP, or None where each holds it all."""
    for kind in ("DEEPSPEED", "FSDP"):
        if os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() in ("true", "1"):
            return kind
    return None


def machine_defaults() -> dict[str, Any]:
    """What trl's and transformers' defaults become on this machine under this launcher, where nothing else is said."""
    # Batches without pictures leave the projector without a gradient; what transformers chooses here hangs on the model's class.
    several = {"ddp_find_unused_parameters": True} if world_size() > 1 and sharding() is None else {}
    if torch.cuda.is_available():
        return several | {"bf16": torch.cuda.is_bf16_supported()}
    # DeepSpeed has a notion of a CPU of its own (DS_ACCELERATOR=cpu); with `use_cpu` it would not be used at all.
    cpu = {"ddp_backend": "gloo"} if sharding() == "DEEPSPEED" else {"use_cpu": True}
    return several | cpu | {"bf16": False, "gradient_checkpointing": False, "dataloader_pin_memory": False}


def in_step_by_pictures(arguments: Any) -> bool:
    """Whether a batch without pictures needs one that nothing looks at.

    Processes that divide weights, or expect a gradient of every trained one, wait for each other in every module. One that skips the
    vision tower and the projector would leave the others waiting.
    """
    return world_size() > 1 and (sharding() is not None or arguments.ddp_find_unused_parameters is False)


def check_launch(accelerator: Any) -> None:
    """Raises UserError where accelerate runs with fewer processes, or otherwise, than the launcher was told."""
    kind, wanted = accelerator.distributed_type.value, sharding()
    if accelerator.num_processes != world_size():
        raise UserError(
            f"{world_size()} processes were launched, but accelerate runs {accelerator.num_processes} ({kind}); each would train on its own"
        )
    if wanted and kind != wanted:
        raise UserError(
            f"the launcher asks for {wanted}, but accelerate runs {kind}: there is no GPU, or none is to be used (ACCELERATE_USE_CPU); "
            f"on CPUs use accelerate_configs/cpu.yaml, or zero2.yaml and zero3.yaml with DS_ACCELERATOR=cpu"
        )
