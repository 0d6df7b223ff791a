"""Loading a diffusers pipeline: its device, its dtype, and parts that wait in CPU memory."""

from __future__ import annotations

import inspect
import re
import warnings
from typing import Any

import torch

from align.devices import has_gpu
from align.errors import UserError
from align.settings import PainterSettings

DTYPES = ("auto", "float32", "bfloat16", "float16")
OFFLOADS = ("model", "sequential")
DEVICE = re.compile(r"cpu|cuda(:\d+)?")
SHORT = re.compile(
    r"out of memory|not enough memory|can.t allocate memory|cannot allocate|_ALLOC_FAILED|failed to allocate",
    re.IGNORECASE,
)
"""Messages of a RuntimeError when memory is short: of the CPU's allocator, cuBLAS and cuDNN."""


def check_settings(name: str, settings: PainterSettings) -> None:
    """Raise UserError for values that are invalid on every machine."""
    if settings.batch_size < 1:
        raise UserError(f"{name}.batch_size={settings.batch_size}: expected at least 1")
    if settings.dtype not in DTYPES:
        raise UserError(f"{name}.dtype={settings.dtype}: expected one of {', '.join(DTYPES)}")
    if settings.device is not None and not DEVICE.fullmatch(settings.device):
        raise UserError(f"{name}.device={settings.device}: expected cpu, cuda or cuda:<number>")
    if settings.offload is not None and settings.offload not in OFFLOADS:
        raise UserError(f"{name}.offload={settings.offload}: expected one of {', '.join(OFFLOADS)}")
    if settings.offload is not None and settings.device == "cpu":
        raise UserError(
            f"{name}.offload={settings.offload} needs a GPU, but {name}.device=cpu; remove one of the two settings"
        )


def device_of(name: str, settings: PainterSettings) -> str:
    """The device of the pipeline on this machine. Raises UserError if it does not exist."""
    device = settings.device or ("cuda" if has_gpu() else "cpu")
    if device == "cpu" and settings.offload is not None:
        raise UserError(
            f"{name}.offload={settings.offload} needs a GPU, and there is no GPU here; remove {name}.offload="
        )
    if device == "cpu":
        return device
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) >= gpus:
        raise UserError(f"{name}.device={device}: there are {gpus} GPUs here; correct the device, or remove it")
    return device


def load(name: str, settings: PainterSettings) -> Any:
    """The pipeline, on its device. Raises UserError if it cannot be loaded, or does not fit into the memory."""
    import diffusers

    device = device_of(name, settings)
    auto = "float32" if device == "cpu" else "bfloat16"
    dtype = getattr(torch, auto if settings.dtype == "auto" else settings.dtype)
    # Renamed in diffusers 1.0; a name that it does not know is ignored, and the weights would be float32.
    key = "torch_dtype" if diffusers.__version__.startswith("0.") else "dtype"
    diffusers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            pipeline = diffusers.DiffusionPipeline.from_pretrained(
                settings.path, revision=settings.revision, use_safetensors=True, **{key: dtype}
            )
        _check_complete(pipeline)
        _mark_image_tokens(pipeline)
        pipeline.set_progress_bar_config(disable=True)
        _place(pipeline, settings.offload, device)
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(
                f"{name}.path={settings.path}: the pipeline does not fit into the memory of {device}; give "
                f"{name}.offload=model, then {name}.offload=sequential, or {name}.dtype=bfloat16 ({error})"
            ) from error
        raise UserError(
            f"{name}.path={settings.path}: cannot be loaded: {error}; it needs all its parts, with weights as "
            "safetensors"
        ) from error
    return pipeline


def _check_complete(pipeline: Any) -> None:
    """Raise ValueError for weights that the files do not contain: they have no values."""
    for part, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            absent = [name for name, value in module.state_dict().items() if value.is_meta]
            if absent:
                raise ValueError(f"{len(absent)} weights of {part} are absent: {', '.join(absent[:3])}")


def _mark_image_tokens(pipeline: Any) -> None:
    """Say which tokens are an image's to text encoders that read images, as transformers 5 expects.

    The Qwen-Image-Edit pipelines of diffusers do not pass this on, and the positions of the image are then wrong,
    without an error (huggingface/diffusers issue 14194).
    """
    for part in pipeline.components.values():
        if (
            isinstance(part, torch.nn.Module)
            and hasattr(getattr(part, "config", None), "image_token_id")
            and "mm_token_type_ids" in inspect.signature(part.forward).parameters
        ):
            part.register_forward_pre_hook(_with_token_types, with_kwargs=True)


def _with_token_types(part: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    tokens = kwargs.get("input_ids")
    if tokens is None or kwargs.get("image_grid_thw") is None or kwargs.get("mm_token_type_ids") is not None:
        return args, kwargs
    return args, kwargs | {
        "mm_token_type_ids": (tokens == part.config.image_token_id).int()
    }  # 1 is an image, 0 is text


def _place(pipeline: Any, offload: str | None, device: str) -> None:
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.to(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, of a GPU or of the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and SHORT.search(str(error)) is not None
