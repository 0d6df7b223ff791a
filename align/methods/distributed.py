"""What the launcher asked for, and whether it is what runs: accelerate falls back to something smaller in silence.

`accelerate launch --cpu --num_processes 2` runs two worlds of one; FSDP on a CPU, and DeepSpeed told to use one, become plain data
parallelism. Each trains something else than was asked for, or the same several times over.
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
"""What divides a model among processes, by accelerate's names."""

PREPARING = 4
"""Data loader workers of a training process, at most: docs/performance.md has what one renders and what GPUs train on."""


def world_size() -> int:
    """How many processes the launcher started: its word, since asking accelerate would settle its state too early."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def sharding() -> str | None:
    """How the launcher divides a model among processes: DEEPSPEED, FSDP, or None where each holds it all."""
    for kind in SHARDING:
        if os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() in ("true", "1"):
            return kind
    return None


def machine_defaults() -> dict[str, Any]:
    """What trl's and transformers' defaults become on this machine under this launcher, where nothing else is said."""
    # Batches without images leave the projector without a gradient; what transformers chooses here hangs on the model's class.
    several = {"ddp_find_unused_parameters": True} if world_size() > 1 and sharding() is None else {}
    if has_gpu():
        return several | {"bf16": torch.cuda.is_bf16_supported(), "dataloader_num_workers": spare_workers()}
    # DeepSpeed has a notion of a CPU of its own (DS_ACCELERATOR=cpu); with `use_cpu` it would not be used at all.
    cpu = {"ddp_backend": "gloo"} if sharding() == "DEEPSPEED" else {"use_cpu": True}
    alone = {"dataloader_num_workers": 0, "dataloader_pin_memory": False}
    return several | cpu | alone | {"bf16": False, "gradient_checkpointing": False}


def spare_workers() -> int:
    """Data loader workers of this process where a GPU computes: its share of the machine's usable processors, less its own one.

    On a CPU there are none, since training computes on all processors. Workers end with each epoch: persistent ones would take fewer
    draws of torch's generator, so that dropout on a CPU would differ from that of a run without workers.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(0, min(PREPARING, usable_processors() // here - 1))


def divides_weights() -> bool:
    """Whether each process holds but a part of the weights, so that all must pass every module together: FSDP, ZeRO-3."""
    return sharding() == "FSDP" or (sharding() == "DEEPSPEED" and is_deepspeed_zero3_enabled())


def in_step_by_images(arguments: Any) -> bool:
    """Whether a batch without images needs one that nothing looks at.

    Processes that divide weights, or expect a gradient of every trained one, wait for each other in every module. One that skips the
    vision tower and the projector would leave the others waiting.
    """
    return world_size() > 1 and (sharding() is not None or arguments.ddp_find_unused_parameters is False)


def name_layers(model: Any) -> None:
    """Tell accelerate's FSDP which layers of a model to divide, where its configuration does not say.

    It would ask for every class that the model's parts mention, among them classes that a vision-language model does not have.
    """
    if sharding() == "FSDP" and not os.environ.get(FSDP_LAYERS):
        there = {type(module).__name__ for module in model.modules()}
        os.environ[FSDP_LAYERS] = ",".join(sorted(there & set(model._no_split_modules)))


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


def refuse_other_launch(manifest: dict[str, Any], accelerator: Any) -> None:
    """Raises UserError where a checkpoint of DeepSpeed or FSDP would be resumed without, or the other way round.

    Each keeps the optimizer in files of its own; transformers would begin optimizer and schedule anew, in silence.
    """

    def told(kind: str, processes: int) -> str:
        return f"{kind} with {processes} processes" if kind in SHARDING else "neither DeepSpeed nor FSDP"

    then = told(str(manifest.get("distributed_type")), manifest.get("world_size", 1))
    now = told(accelerator.distributed_type.value, accelerator.num_processes)
    if then != now:
        raise UserError(
            f"the checkpoint of this run was saved under {then}, and this launch is {now}: its optimizer cannot be read; launch it as "
            f"before, or begin anew with resume=false"
        )
