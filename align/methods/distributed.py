"""Check that accelerate runs what the launcher asked for: accelerate silently falls back to less.

`accelerate launch --cpu --num_processes 2` runs two independent processes. FSDP on a CPU becomes
plain data parallelism, and so does DeepSpeed that is configured to use a CPU. Each case trains
something different, or trains the same run several times.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers.integrations import is_deepspeed_zero3_enabled

from align.devices import has_gpu, usable_processors
from align.errors import UserError

FSDP_LAYERS = "FSDP_TRANSFORMER_CLS_TO_WRAP"
SHARDING = ("DEEPSPEED", "FSDP")
"""Launchers that divide a model among processes, by accelerate's names."""

PREPARING = 4
"""Maximum number of data loader workers of a training process. docs/performance.md compares how
many rows a worker renders with how many rows GPUs train on."""


def world_size() -> int:
    """Number of processes that the launcher started, from its environment variable.

    Accelerate is not asked, because that would initialize its state too early.
    """
    return int(os.environ.get("WORLD_SIZE", "1"))


def sharding() -> str | None:
    """How the launcher divides a model: DEEPSPEED, FSDP, or None if each process holds it all."""
    for kind in SHARDING:
        if os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() in ("true", "1"):
            return kind
    return None


def machine_defaults() -> dict[str, Any]:
    """Defaults for this machine and launcher that replace those of trl and transformers.

    A recipe overrides them.
    """
    # A batch without images gives the projector no gradient, and transformers' default depends on
    # the model class.
    several = {"ddp_find_unused_parameters": True} if world_size() > 1 and sharding() is None else {}
    if has_gpu():
        return several | {"bf16": torch.cuda.is_bf16_supported(), "dataloader_num_workers": spare_workers()}
    # DeepSpeed has its own setting for a CPU (DS_ACCELERATOR=cpu); with `use_cpu` DeepSpeed would
    # not be used at all.
    cpu = {"ddp_backend": "gloo"} if sharding() == "DEEPSPEED" else {"use_cpu": True}
    alone = {"dataloader_num_workers": 0, "dataloader_pin_memory": False}
    return several | cpu | alone | {"bf16": False, "gradient_checkpointing": False}


def spare_workers() -> int:
    """Data loader workers of this process: its share of usable processors, minus one for itself.

    A CPU run has no workers, because training uses all processors. Workers end after each epoch.
    Persistent workers would draw fewer numbers from torch's generator, so dropout on a CPU would
    differ from a run without workers.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(0, min(PREPARING, usable_processors() // here - 1))


def divides_weights() -> bool:
    """Whether each process holds only a part of the weights (FSDP, ZeRO-3).

    Then all processes must run every module together.
    """
    return sharding() == "FSDP" or (sharding() == "DEEPSPEED" and is_deepspeed_zero3_enabled())


def in_step_by_images(arguments: Any) -> bool:
    """Whether a batch without images needs a dummy image, which no token attends to.

    Processes that divide weights, or that expect a gradient for every trained weight, wait for each
    other in every module. If one process skips the vision tower and the projector, the others wait
    forever.
    """
    return world_size() > 1 and (sharding() is not None or arguments.ddp_find_unused_parameters is False)


def name_layers(model: Any) -> None:
    """Set the layer classes that accelerate's FSDP wraps, if its configuration does not name them.

    By default it wraps every class that the model's parts list, also classes that the
    vision-language model does not contain.
    """
    if sharding() == "FSDP" and not os.environ.get(FSDP_LAYERS):
        there = {type(module).__name__ for module in model.modules()}
        os.environ[FSDP_LAYERS] = ",".join(sorted(there & set(model._no_split_modules)))


def check_launch(accelerator: Any) -> None:
    """Raises UserError if accelerate does not run the processes or the backend that were launched."""
    kind, wanted = accelerator.distributed_type.value, sharding()
    if accelerator.num_processes != world_size():
        raise UserError(
            f"the launcher started {world_size()} processes, but accelerate runs {accelerator.num_processes} "
            f"({kind}), so each process would train separately; on CPUs use accelerate_configs/cpu.yaml"
        )
    if wanted and kind != wanted:
        raise UserError(
            f"the launcher asks for {wanted}, but accelerate runs {kind}: this machine has no GPU, or "
            "ACCELERATE_USE_CPU forbids its use; on CPUs use accelerate_configs/cpu.yaml, or zero2.yaml or "
            "zero3.yaml with DS_ACCELERATOR=cpu"
        )


def refuse_other_launch(manifest: dict[str, Any], accelerator: Any) -> None:
    """Raises UserError if a checkpoint of DeepSpeed or FSDP is resumed without it, or the reverse.

    Each saves the optimizer in its own files. transformers would silently start with a new
    optimizer and learning rate schedule.
    """

    def told(kind: str, processes: int) -> str:
        return f"{kind} with {processes} processes" if kind in SHARDING else "neither DeepSpeed nor FSDP"

    then = told(str(manifest.get("distributed_type")), manifest.get("world_size", 1))
    now = told(accelerator.distributed_type.value, accelerator.num_processes)
    if then != now:
        raise UserError(
            f"the checkpoint of this run was saved with {then}, but this launch uses {now}, so its optimizer cannot "
            "be read; launch it as before, or start again with resume=false"
        )
