"""Checks whether a model's files are available, in a folder or in the Hub's cache. Imports no heavy packages."""

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
"""Files that a model folder needs in addition to weights: {name for messages: alternative files, one is enough}."""


@dataclass
class Weights:
    """A folder's weights, in bytes."""

    total: int
    """Size when complete."""
    there: int
    absent: list[str]
    """Files that the index names and that are absent."""


def offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids access to the Hub."""
    from huggingface_hub.constants import is_offline_mode

    return bool(is_offline_mode())


def cache() -> Path:
    """The folder of the Hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def folder_of(path: str, revision: str | None = None) -> Path | None:
    """The folder of a model's files: the path itself, or its snapshot in the cache; None if neither exists."""
    if Path(path).is_dir():
        return Path(path)
    if not is_hub_id(path):
        return None
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(path, "config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else None


def weights_of(folder: Path) -> Weights:
    """The size of a folder's weights, and their absent files. Raises UserError for an index that cannot be read."""
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
    """The model type in a folder's config.json. Raises UserError if the file cannot be read."""
    return str(read_json(folder / "config.json").get("model_type"))


def lacking(folder: Path) -> list[str]:
    """The files that loading needs and that a model folder does not have."""
    lack = [what for what, names in NEEDED.items() if not any((folder / name).is_file() for name in names)]
    absent = weights_of(folder).absent
    if absent == [WEIGHTS]:
        absent = ["weights as safetensors (pickles are not loaded)"]
    return lack + absent


def absent(settings: ModelSettings, strict: bool) -> str | None:
    """The absent files of a model, in one line; None if all are available.

    A Hub id that is not in the cache is downloaded when it is loaded, so it counts as absent only if `strict`.
    """
    path, revision = settings.path, settings.revision
    if not path:  # `model.build` builds an absent model
        return None
    folder, of_hub = folder_of(path, revision), is_hub_id(path)
    if of_hub and not strict:
        return None
    if folder is None and not of_hub:
        return f"model {settings.name}: the folder model.path={path} does not exist; correct the path, or give a Hub id"
    lack = lacking(folder) if folder else []
    if not of_hub:
        return f"model {settings.name}: {path} lacks {', '.join(lack)}" if lack else None
    named = f"model {path}, revision {revision or 'main'}"
    if folder is None:
        return f"{named}: not in the cache {cache()}"
    return f"{named}: incomplete in the cache {cache()}: it lacks {', '.join(lack)}" if lack else None


def absent_adapter(adapter: str) -> str | None:
    """The absent file of an adapter's folder, in one line; None if it can be loaded."""
    if Path(adapter, "adapter_model.safetensors").is_file():
        return None
    return (
        f"adapter {adapter}: adapter_model.safetensors does not exist; save the adapter as safetensors, since pickles "
        "(adapter_model.bin) are not loaded"
    )


def refuse_absent(settings: ModelSettings) -> None:
    """Raise UserError if a model must be downloaded from the Hub while access is forbidden."""
    if settings.path and is_hub_id(settings.path) and offline() and (line := absent(settings, strict=True)):
        raise UserError(f"{line}, and HF_HUB_OFFLINE forbids access to the Hub; {remedy(settings)}")


def remedy(settings: ModelSettings, recipe: str = "<recipe>") -> str:
    """What to do about a Hub id that is not in the cache."""
    return f"with a network connection, run: align fetch recipe={recipe} model={settings.name} (and the run's other arguments)"
