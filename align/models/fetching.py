"""Download a model's files from the Hub into the cache: only the files that loading reads."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from align.errors import UserError
from align.hub_errors import said
from align.models import presence
from align.settings import ModelSettings

WANTED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
"""Weights, configuration, template, vocabularies; no pickles, because they are never loaded."""
NOT_WANTED = ["*/*", "consolidated*"]
"""Copies of the weights for other programs, in folders (original/, onnx/, gguf/) or with Mistral's file name."""


@dataclass
class Fetched:
    """A snapshot in the cache."""

    folder: Path
    commit: str
    files: int
    bytes: int
    downloaded: int
    """Bytes that this call downloaded."""


def fetch(settings: ModelSettings) -> Fetched:
    """Download the files of a model that are not in the cache yet. Raises UserError with the model
    and the Hub's error.
    """
    from huggingface_hub import snapshot_download

    path, revision = str(settings.path), settings.revision
    named = f"model {path}, revision {revision or 'main'}"
    try:
        files = snapshot_download(
            path, revision=revision, allow_patterns=WANTED, ignore_patterns=NOT_WANTED, dry_run=True
        )
        to_come = sum(file.file_size or 0 for file in files if file.will_download)
        _refuse_too_large(named, to_come)
        folder = Path(snapshot_download(path, revision=revision, allow_patterns=WANTED, ignore_patterns=NOT_WANTED))
    except OSError as error:  # errors of the Hub are OSErrors
        raise UserError(f"{named}: {said(error, 'model.revision=')}") from error
    if lack := presence.lacking(folder):
        raise UserError(f"{named}: the repository has no {', '.join(lack)}")
    return Fetched(folder, folder.name, len(files), sum(file.file_size or 0 for file in files), to_come)


def _refuse_too_large(named: str, size: int) -> None:
    cache = presence.cache().absolute()
    there = next(parent for parent in (cache, *cache.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise UserError(
            f"{named}: the download needs {size:,} bytes, but only {free:,} are free at {cache}; set HF_HOME to a "
            "folder on another disk"
        )
