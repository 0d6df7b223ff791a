"""Fingerprints of weights: a model is identified by its content, not by its path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from align.models.presence import folder_of
from align.settings import ModelSettings

WEIGHED = ("*.safetensors", "adapter_config.json")
"""Files that count; an adapter's scale is in its configuration."""
WHOLE = 64 * 2**20
"""A file up to this many bytes is read completely; of a larger file, e.g. 14 GB, a sample of each tensor is read."""
SAMPLE = 1 << 12
"""Bytes read in the middle of each tensor of a large file; training changes nearly every value of a tensor."""


def fingerprint_of(folders: Sequence[str], more: str = "") -> str:
    """Sixteen hex digits that change with the weights in these folders, and with `more`."""
    digest = hashlib.sha256(more.encode())
    for file in sorted(file for folder in folders for names in WEIGHED for file in Path(folder).glob(names)):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        for content in [file.read_bytes()] if size <= WHOLE else _samples(file):
            digest.update(content)
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Base:
    """The model and adapter that a run starts from."""

    path: str
    """The model's folder or Hub id."""
    adapter: str | None
    """The folder of the adapter whose training continues."""
    weights: str
    """Sixteen hex digits of the content of both; "" for a Hub id that is not in the cache, whose content is unknown."""

    def __str__(self) -> str:
        return f"{self.path} with {self.adapter}" if self.adapter else self.path

    @classmethod
    def at(cls, path: str, settings: ModelSettings) -> Base:
        """The base in a folder or on the Hub, with the adapter of the settings."""
        folder = folder_of(path, settings.revision)
        if folder is None:
            return cls(path, settings.adapter, "")
        return cls(path, settings.adapter, fingerprint_of([str(folder), *filter(None, [settings.adapter])]))


def _samples(file: Path) -> Iterator[bytes]:
    """The header of a safetensors file, which names every tensor, and a sample of each tensor."""
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        header = content.read(length)
        yield header
        tensors = {name: of for name, of in json.loads(header).items() if name != "__metadata__"}
        for _, of in sorted(tensors.items()):
            begin, end = of["data_offsets"]
            content.seek(8 + length + (begin + max(end - SAMPLE, begin)) // 2)
            yield content.read(min(SAMPLE, end - begin))
