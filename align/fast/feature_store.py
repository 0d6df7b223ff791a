"""What a frozen vision tower and projector make of images, kept from one epoch and one run to the next, in about so many bytes.

A file is one image, found by the pixels as the processor gives them; a folder is of one tower and projector: their weights, types and
libraries. Nothing is trusted: a file that is not what was written is thrown away, and the first images that are there are encoded all the
same and compared. When the bytes are used up, what is stored stays, and other images are encoded each time: a pass over the data in
another order would otherwise throw away what it needs next. A cache that cannot be read or written only costs time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from align.families import Family
from align.fast.images_once import encoders
from align.files import cache_folder

COUNTED_AGAIN = 64
"""Images between two looks at how large the folder has become: other processes write too, and each may go as many beyond."""
OLD = 3600.0
"""Seconds after which a draft is what a killed process left behind."""
NEAR, NEAR_IN_16_BITS = 1e-4, 0.02
"""How far the same image's features may be from what is stored, over their size: rounding."""


class FeatureStore:
    """Features of images in a folder that processes and runs share; it and its neighbours hold about `limit` bytes at most."""

    def __init__(self, folder: Path, limit: int, near: float = NEAR):
        self.folder, self.limit, self.near, self.checked = folder, limit, near, False
        self._size, self._asked, self._told = 0, 0, False

    def find(self, name: str) -> torch.Tensor | None:
        """(tokens, hidden size) of an image; None where it is not there."""
        file = self._file(name)
        try:
            with safe_open(file, "pt") as opened:
                features: torch.Tensor = opened.get_tensor("features")
                if opened.metadata()["sha256"] == _sha256(features):
                    return features
            error: Exception | str = "its content has changed"
        except OSError:  # not there, or not to be read now
            return None
        except (SafetensorError, KeyError, TypeError, ValueError) as damage:
            error = damage
        print(f"{file}: thrown away, and encoded anew: {error}", file=sys.stderr, flush=True)
        with suppress(OSError):
            file.unlink()
        return None

    def add(self, name: str, features: torch.Tensor) -> None:
        """One image more, if there is room: beside, and renamed."""
        if self._asked % COUNTED_AGAIN == 0:
            self._size = _size(self.folder.parent)
        self._asked += 1
        if self._size + features.nbytes > self.limit:
            self._say(f"stored_features={self.limit / 2**30:g} GiB are used up", "Allow more, or remove folders there")
            return
        here, draft = features.detach().cpu().contiguous(), self.folder / f".{uuid.uuid4().hex}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({"features": here}, draft, {"sha256": _sha256(here)})
            self._size += draft.stat().st_size
            draft.rename(self._file(name))
        except (OSError, SafetensorError) as error:  # what a full disk is to Python and to safetensors
            self._say(f"features cannot be stored: {error}", "What is there is used")
        finally:
            with suppress(OSError):
                draft.unlink()

    def check(self, stored: Mapping[str, torch.Tensor], encoded: Mapping[str, torch.Tensor]) -> None:
        """Throw everything of these weights away unless images are encoded to what is stored of them; once is enough."""
        if self.checked or not stored:
            return
        self.checked = True
        pairs = [(features, encoded[name].cpu()) for name, features in stored.items()]
        alike = all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
        if alike and all((a.float() - b.float()).norm() <= self.near * b.float().norm() for a, b in pairs):
            return
        said = "what is stored is not what the model makes of these images: encoded anew"
        print(f"{self.folder}: {said}", file=sys.stderr, flush=True)
        for file in self.folder.glob("*.safetensors"):
            with suppress(OSError):
                file.unlink()

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _say(self, what: str, remedy: str) -> None:
        if not self._told:
            self._told = True
            print(
                f"{self.folder.parent}: {what}; other images are encoded each time. {remedy}",
                file=sys.stderr,
                flush=True,
            )


def feature_store(model: Any, family: Family, arguments: Any, limit: float) -> FeatureStore:
    """The store of what encodes images, as a run computes it; `limit` in GiB."""
    settings = model.config.to_dict()
    vision = {key: value for key, value in settings.items() if key.startswith("vision_")}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() and not arguments.use_cpu else "cpu"
    computed_as = [device, arguments.bf16, arguments.fp16, torch.__version__, transformers.__version__]
    told = hashlib.sha256(json.dumps([vision, *computed_as], sort_keys=True, default=str).encode())
    for parameter in encoders(model, family).values():
        told.update(f"{tuple(parameter.shape)} {parameter.dtype}".encode())
        told.update(_bytes(parameter))
    in_16_bits = arguments.bf16 or arguments.fp16 or model.dtype.itemsize < 4
    folder = cache_folder("features") / told.hexdigest()[:16]
    return FeatureStore(folder, int(limit * 2**30), NEAR_IN_16_BITS if in_16_bits else NEAR)


def _size(folder: Path) -> int:
    """Bytes of the files in the folders of a folder; what killed processes left there is thrown away."""
    size = 0
    with suppress(OSError):
        for model in folder.iterdir():
            with suppress(OSError), os.scandir(model) as files:
                for file in files:
                    with suppress(FileNotFoundError):  # another process renamed it, or threw it away
                        told = file.stat()
                        if file.name.startswith(".") and time.time() - told.st_mtime > OLD:
                            Path(file.path).unlink()
                        else:
                            size += told.st_size
    return size


def _bytes(values: torch.Tensor) -> bytes:
    return values.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()


def _sha256(features: torch.Tensor) -> str:
    return hashlib.sha256(_bytes(features)).hexdigest()
