"""What a frozen vision tower and projector make of pictures, kept from one epoch and one run to the next, in so many bytes at most.

A file is one picture, found by the pixels as the processor gives them; a folder is of one model, its types and libraries. Nothing is
trusted: a file that is not what was written is thrown away, and the first pictures that are there are encoded all the same and compared.
When the bytes are used up, what is stored stays, and other pictures are encoded each time: a pass over the data in another order would
otherwise throw away what it needs next.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from align.files import cache_folder
from align.models.loading import Loaded

COUNTED_AGAIN = 64
"""Pictures that are written between two looks at how large the folder has become: other processes write too."""
NEAR, NEAR_IN_16_BITS = 1e-4, 0.02
"""How far the same picture's features may be from what is stored, over their size: rounding."""


class FeatureStore:
    """Features of pictures in a folder that processes and runs share; with its neighbours it holds `limit` bytes at most."""

    def __init__(self, folder: Path, limit: int, near: float = NEAR):
        self.folder, self.limit, self.near, self.checked = folder, limit, near, False
        folder.mkdir(parents=True, exist_ok=True)
        self._size, self._written, self._told = _size(folder.parent), 0, False

    def find(self, name: str) -> torch.Tensor | None:
        """(tokens, hidden size) of a picture; None where it is not there."""
        file = self.folder / f"{name}.safetensors"
        try:
            with safe_open(file, "pt") as opened:
                features: torch.Tensor = opened.get_tensor("features")
                if opened.metadata()["sha256"] != _sha256(features):
                    raise ValueError("its content has changed")
            return features
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            print(f"{file}: thrown away, and encoded anew: {error}", file=sys.stderr, flush=True)
            file.unlink(missing_ok=True)
            return None

    def add(self, name: str, features: torch.Tensor) -> None:
        """One picture more, if there is room: beside, and renamed."""
        here = features.detach().cpu().contiguous()
        if self._written % COUNTED_AGAIN == COUNTED_AGAIN - 1:
            self._size = _size(self.folder.parent)
        if self._size + here.nbytes > self.limit:
            self._say_that_it_is_full()
            return
        draft = self.folder / f".{uuid.uuid4().hex}"
        save_file({"features": here}, draft, {"sha256": _sha256(here)})
        self._size, self._written = self._size + draft.stat().st_size, self._written + 1
        draft.rename(self.folder / f"{name}.safetensors")

    def check(self, stored: Mapping[str, torch.Tensor], encoded: Mapping[str, torch.Tensor]) -> None:
        """Throw everything of this model away unless pictures are encoded to what is stored of them; once is enough."""
        if self.checked or not stored:
            return
        self.checked = True
        pairs = [(features, encoded[name].cpu()) for name, features in stored.items()]
        alike = all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
        if alike and all((a.float() - b.float()).norm() <= self.near * b.float().norm() for a, b in pairs):
            return
        print(
            f"{self.folder}: what is stored is not what the model makes of these pictures: encoded anew",
            file=sys.stderr,
            flush=True,
        )
        for file in self.folder.glob("*.safetensors"):
            file.unlink(missing_ok=True)

    def _say_that_it_is_full(self) -> None:
        if not self._told:
            self._told = True
            print(
                f"{self.folder.parent}: stored_features={self.limit / 2**30:g} GiB are used up; pictures beyond are encoded each time. "
                f"Allow more, or remove folders there",
                file=sys.stderr,
                flush=True,
            )


def feature_store(loaded: Loaded, arguments: Any, limit: float) -> FeatureStore:
    """The store of a model as a run computes it; `limit` in GiB."""
    ignored = ("_name_or_path", "transformers_version")
    config = {key: value for key, value in loaded.model.config.to_dict().items() if key not in ignored}
    computed_as = [str(loaded.model.dtype), arguments.bf16, arguments.fp16, torch.__version__, transformers.__version__]
    told = json.dumps([loaded.weights, config, *computed_as], sort_keys=True, default=str)
    in_16_bits = arguments.bf16 or arguments.fp16 or loaded.model.dtype.itemsize < 4
    folder = cache_folder("features") / hashlib.sha256(told.encode()).hexdigest()[:16]
    return FeatureStore(folder, int(limit * 2**30), NEAR_IN_16_BITS if in_16_bits else NEAR)


def _size(folder: Path) -> int:
    """Bytes of the files in the folders of a folder."""
    size = 0
    for model in folder.iterdir():
        with suppress(OSError), os.scandir(model) as files:
            for file in files:
                with suppress(FileNotFoundError):  # another process renamed it, or threw it away
                    size += file.stat().st_size
    return size


def _sha256(features: torch.Tensor) -> str:
    return hashlib.sha256(features.view(torch.uint8).numpy().tobytes()).hexdigest()
