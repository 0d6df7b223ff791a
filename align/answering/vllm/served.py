"""What vLLM loads: a model folder, and an adapter that it can apply itself; otherwise the merged model.

vLLM ignores adapters on the vision tower and the projector with no more than a warning, and refuses
DoRA and modules that are trained in full. Such adapters are merged before vLLM starts.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from align.errors import UserError
from align.families import ENCODES_IMAGES, Family
from align.files import cache_folder, read_json
from align.models.loading import Loaded, ModelSource, dtype_name
from align.models.merging import merge_loaded
from align.models.presence import folder_of
from align.models.published_names import lacks_published_names, use_published_names

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Maximum ranks that vLLM can be started with."""
INERT: dict[str, Any] = {
    "use_dora": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "bias": "none",
}
"""Settings of an adapter, with the values that vLLM applies correctly. An empty value is one of them too."""


@dataclass(frozen=True)
class Served:
    """A model for vLLM."""

    folder: str
    adapter: str | None
    """The folder of an adapter that vLLM applies."""
    rank: int
    """vLLM's maximum rank for it; 0 without an adapter."""
    temporary: Path | None
    """A folder that was made for vLLM."""

    def remove(self) -> None:
        """Remove the folder that was made for vLLM."""
        if self.temporary is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)


def served(known: Loaded, source: ModelSource) -> Served:
    """The files that vLLM loads for a model; made if necessary. Raises UserError.

    `known` is the model without its weights.
    """
    adapter = source.adapter or source.settings.adapter
    if adapter is not None and why_merged(Path(adapter), known.family):
        refuse_quantized(known)
        return _merged(source, adapter)
    rank = 0 if adapter is None else least_rank(read_json(Path(adapter) / "adapter_config.json")["r"])
    return served_base(known, adapter, rank)


def refuse_quantized(known: Loaded) -> None:
    """Raise UserError for a model that is quantized while it is loaded."""
    if known.settings.quantization:
        raise UserError(
            f"model.quantization={known.settings.quantization}: vLLM would quantize the model in another way; use "
            "transformers as the engine"
        )


def served_base(known: Loaded, adapter: str | None = None, rank: int = 0) -> Served:
    """The base model of `known`, with an adapter that vLLM applies, or room for adapters up to a rank. Raises UserError."""
    refuse_quantized(known)
    folder = folder_of(known.path, known.settings.revision)
    if folder is not None and lacks_published_names(folder):
        copy = _room()
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        use_published_names(copy)
        return Served(str(copy), adapter, rank, copy)
    return Served(str(folder or known.path), adapter, rank, None)


def why_merged(adapter: Path, family: Family) -> str | None:
    """Why vLLM cannot apply an adapter itself; None if it can."""
    config = read_json(adapter / "adapter_config.json")
    if config.get("peft_type") != "LORA":
        return f"its type is {config.get('peft_type')}"
    for key, value in INERT.items():
        if config.get(key, value) and config[key] != value:
            return f"{key}={config[key]}"
    if config["r"] > RANKS[-1]:
        return f"its rank is {config['r']}"
    try:
        with safe_open(adapter / "adapter_model.safetensors", "pt") as weights:
            names = list(weights.keys())
    except (OSError, SafetensorError) as error:
        raise UserError(f"adapter {adapter}: cannot be read: {error}; train or copy it again") from error
    outside = next((name for name in names if family.tower_of(name) != "language_model"), None)
    if outside is None:
        return None
    tower = family.tower_of(outside)
    return f"it changes the {tower}" if tower in ENCODES_IMAGES else f"it changes {outside}"


def engine_settings(known: Loaded) -> dict[str, Any]:
    """Arguments of vLLM that belong to the model."""
    settings: dict[str, Any] = {
        "dtype": dtype_name(known),  # its own "auto" is a 16-bit type for float32 weights
        "generation_config": "vllm",  # otherwise the model's own, with e.g. a repetition penalty
        "seed": 0,
    }
    images = known.processor.image_processor
    if hasattr(images, "merge_size") and hasattr(images, "patch_size"):
        # Images come in their final size. The lower bound of the processor could enlarge some of them again.
        least = (images.patch_size * images.merge_size) ** 2
        settings["mm_processor_kwargs"] = {"size": dict(images.size) | {"shortest_edge": least}}
    return settings


def least_rank(r: int) -> int:
    """The lowest of vLLM's maximum ranks that an adapter of rank `r` fits."""
    return next(rank for rank in RANKS if rank >= r)


def _merged(source: ModelSource, adapter: str) -> Served:
    room = _room()
    try:
        merge_loaded(source.load(), Path(adapter), room / "model")
    except BaseException:
        shutil.rmtree(room, ignore_errors=True)
        raise
    return Served(str(room / "model"), None, 0, room)


def _room() -> Path:
    """A new folder in the cache; folders of killed processes of this machine are removed."""
    cache, own = cache_folder("vllm"), f"{socket.gethostname()}-"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob(f"{own}*"):
            if not _runs(old.name.removeprefix(own).partition("-")[0]):
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"{own}{os.getpid()}-", dir=cache))
    except OSError as error:
        raise UserError(f"{cache}: cannot be written ({error}); set XDG_CACHE_HOME to a writable folder") from error


def _runs(process: str) -> bool:
    return process.isdigit() and Path("/proc", process).exists()
