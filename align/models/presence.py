"""Whether a model's files are at hand: in a folder of its own or, of a hub id, in the cache. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from align.config.paths import is_hub_id
from align.errors import UserError
from align.files import read_json
from align.settings import ModelSettings

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NEEDED = {
    "config.json": ("config.json",),
    "a tokenizer (tokenizer.json)": ("tokenizer.json", "tokenizer.model", "vocab.json"),
    "an image processor (preprocessor_config.json)": ("preprocessor_config.json", "processor_config.json"),
}
"""What a model folder holds beside its weights: what to call it, and the files of which one is enough."""


@dataclass
class Weights:
    """A folder's weights, in bytes."""

    total: int
    """What they take when they are whole."""
    there: int
    absent: list[str]
    """Files that are named and not there."""


def offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids to ask the hub."""
    from huggingface_hub.constants import is_offline_mode

    return bool(is_offline_mode())


def cache() -> Path:
    """The folder that the hub's files are kept in."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def folder_of(path: str, revision: str | None = None) -> Path | None:
    """The folder that a model is read from: itself, or its snapshot in the cache; None where there is neither."""
    if Path(path).is_dir():
        return Path(path)
    if not is_hub_id(path):
        return None
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(path, "config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else None


def weights_of(folder: Path) -> Weights:
    """How large a folder's weights are, and which of their files are absent. Raises UserError for an index that cannot be read."""
    if (folder / WEIGHTS).is_file():
        size = (folder / WEIGHTS).stat().st_size
        return Weights(size, size, [])
    if not (folder / INDEX).is_file():
        return Weights(0, 0, [WEIGHTS])
    index = read_json(folder / INDEX)
    files = sorted(set(index["weight_map"].values()))
    absent = [name for name in files if not (folder / name).is_file()]
    there = sum((folder / name).stat().st_size for name in files if name not in absent)
    return Weights(max(int(index.get("metadata", {}).get("total_size", 0)), there), there, absent)


def model_type(folder: Path) -> str:
    """What kind of model a folder holds, as its config.json says. Raises UserError where that cannot be read."""
    return str(read_json(folder / "config.json").get("model_type"))


def lacking(folder: Path) -> list[str]:
    """What a model folder would need to be loaded, and does not hold."""
    lack = [what for what, names in NEEDED.items() if not any((folder / name).is_file() for name in names)]
    absent = weights_of(folder).absent
    if absent == [WEIGHTS]:
        absent = ["weights as safetensors (pickles are not loaded)"]
    return lack + absent


def absent(settings: ModelSettings, strict: bool) -> str | None:
    """What of a model is not at hand, in one line with what to do; None where nothing is.

    A hub id that is not in the cache is downloaded by whoever loads it, so that it only counts where that is forbidden (`strict`).
    """
    path, revision = settings.path, settings.revision
    if not path:  # a model that is built is made where it is not there
        return None
    folder, of_hub = folder_of(path, revision), is_hub_id(path)
    if of_hub and not strict:
        return None
    if folder is None and not of_hub:
        return f"model {settings.name}: there is no folder model.path={path}; correct the path, or give a hub id"
    lack = lacking(folder) if folder else []
    if not of_hub:
        return f"model {settings.name}: {path} lacks {', '.join(lack)}" if lack else None
    named = f"model {path}, revision {revision or 'main'}"
    if folder is None:
        return f"{named}: not in the cache {cache()}"
    return f"{named}: not whole in the cache {cache()}: it lacks {', '.join(lack)}" if lack else None


def absent_adapter(adapter: str) -> str | None:
    """What an adapter's folder lacks, in one line; None where it can be loaded."""
    if Path(adapter, "adapter_model.safetensors").is_file():
        return None
    return f"adapter {adapter}: there is no adapter_model.safetensors; pickles (adapter_model.bin) are not loaded"


def refuse_absent(settings: ModelSettings) -> None:
    """Raises UserError where a hub id would be needed from a hub that may not be asked."""
    if settings.path and is_hub_id(settings.path) and offline() and (line := absent(settings, strict=True)):
        raise UserError(f"{line}, and HF_HUB_OFFLINE forbids to ask the hub; {remedy(settings)}")


def remedy(settings: ModelSettings, recipe: str = "<recipe>") -> str:
    """What to do about a hub id that is not at hand."""
    return (
        f"where there is a network: align fetch recipe={recipe} model={settings.name} (and the run's other arguments)"
    )
