"""Weights are known by their content: a model that is replaced behind its path is another model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from align.models.presence import folder_of
from align.settings import ModelSettings

WEIGHED = ("*.safetensors", "adapter_config.json")
"""Files that are looked at; an adapter's scale is in its configuration."""
WHOLE = 64 * 2**20
"""Bytes of a file up to which all of it is read. Of a larger one, 14 GB say, a sample of each tensor is."""
SAMPLE = 1 << 12
"""Bytes read in the middle of each tensor of a large file. Training changes nearly every number of a tensor."""


def fingerprint_of(folders: Sequence[str], more: str = "") -> str:
    """Sixteen hex digits that change with the weights in some folders, and with what else is said."""
    digest = hashlib.sha256(more.encode())
    for file in sorted(file for folder in folders for names in WEIGHED for file in Path(folder).glob(names)):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        for content in [file.read_bytes()] if size <= WHOLE else _samples(file):
            digest.update(content)
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Base:
    """What a run begins from."""

    path: str
    """The model's folder or hub id."""
    adapter: str | None
    """The folder of the adapter that is continued."""
    weights: str
    """Sixteen hex digits of the content of both; "" for a hub id that is not in the cache, whose content is unknown."""

    def __str__(self) -> str:
        return f"{self.path} with {self.adapter}" if self.adapter else self.path

    @classmethod
    def at(cls, path: str, settings: ModelSettings) -> Base:
        """The base in a folder or of the hub, and the adapter that the settings name."""
        folder = folder_of(path, settings.revision)
        if folder is None:
            return cls(path, settings.adapter, "")
        return cls(path, settings.adapter, fingerprint_of([str(folder), *filter(None, [settings.adapter])]))


def _samples(file: Path) -> Iterator[bytes]:
    """The header of a safetensors file, which names every tensor, and a part of each tensor."""
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        header = content.read(length)
        yield header
        tensors = {name: of for name, of in json.loads(header).items() if name != "__metadata__"}
        for _, of in sorted(tensors.items()):
            begin, end = of["data_offsets"]
            content.seek(8 + length + (begin + max(end - SAMPLE, begin)) // 2)
            yield content.read(min(SAMPLE, end - begin))
