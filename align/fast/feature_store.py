"""A disk cache, of limited size, of the image features of a frozen vision tower and projector.

Epochs and runs share it. A file holds the features of one image; its name is a hash of the pixels
that the processor returns. A folder belongs to one vision tower and projector: their weights,
dtypes and library versions. Files are verified: a file whose content has changed is deleted, and
the first cached images of a run are also encoded and compared. When the limit is reached, nothing
is evicted and other images are encoded each time: the next epoch has another order and would soon
need the evicted images. If the cache cannot be read or written, images are encoded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
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

LOG = logging.getLogger(__name__)

COUNTED_AGAIN = 64
"""Images between two measurements of the folder's size. Other processes write to it too, so each
process may exceed the limit by this number of images."""
OLD = 3600.0
"""Seconds after which a temporary file counts as left by a killed process."""
NEAR, NEAR_IN_16_BITS = 1e-4, 0.02
"""Maximum relative difference between new and cached features of the same image, due to
rounding."""


class FeatureStore:
    """Image features in a folder that processes and runs share.

    All such folders together hold about `limit` bytes.
    """

    def __init__(self, folder: Path, limit: int, near: float = NEAR):
        self.folder, self.limit, self.near, self.checked = folder, limit, near, False
        self._size, self._asked, self._told = 0, 0, False

    def find(self, name: str) -> torch.Tensor | None:
        """Features of an image (tokens, hidden size); None if they are not cached."""
        file = self._file(name)
        try:
            with safe_open(file, "pt") as opened:
                features: torch.Tensor = opened.get_tensor("features")
                if opened.metadata()["sha256"] == _sha256(features):
                    return features
            error: Exception | str = "its content has changed"
        except OSError:  # the file does not exist, or cannot be read
            return None
        except (SafetensorError, KeyError, TypeError, ValueError) as damage:
            error = damage
        LOG.warning(f"{file}: deleted, and its image is encoded again: {error}")
        with suppress(OSError):
            file.unlink()
        return None

    def add(self, name: str, features: torch.Tensor) -> None:
        """Add the features of an image, if the limit allows.

        The file is written under a temporary name, then renamed.
        """
        if self._asked % COUNTED_AGAIN == 0:
            self._size = _size(self.folder.parent)
        self._asked += 1
        if self._size + features.nbytes > self.limit:
            self._say(
                f"stored_features={self.limit / 2**30:g} GiB are used up",
                "Increase stored_features, or delete folders there",
            )
            return
        here, draft = features.detach().cpu().contiguous(), self.folder / f".{uuid.uuid4().hex}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({"features": here}, draft, {"sha256": _sha256(here)})
            self._size += draft.stat().st_size
            draft.rename(self._file(name))
        except (OSError, SafetensorError) as error:  # what Python and safetensors raise on a full disk
            self._say(f"features cannot be written: {error}", "Features that are already cached are used")
        finally:
            with suppress(OSError):
                draft.unlink()

    def check(self, stored: Mapping[str, torch.Tensor], encoded: Mapping[str, torch.Tensor]) -> None:
        """Delete all features of these weights if cached features differ from newly encoded ones.

        Checked once per run.
        """
        if self.checked or not stored:
            return
        self.checked = True
        pairs = [(features, encoded[name].cpu()) for name, features in stored.items()]
        alike = all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
        if alike and all((a.float() - b.float()).norm() <= self.near * b.float().norm() for a, b in pairs):
            return
        said = "cached features differ from the features of this model; they are deleted, and images are encoded again"
        LOG.warning(f"{self.folder}: {said}")
        for file in self.folder.glob("*.safetensors"):
            with suppress(OSError):
                file.unlink()

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _say(self, what: str, remedy: str) -> None:
        if not self._told:
            self._told = True
            LOG.warning(f"{self.folder.parent}: {what}; other images are encoded each time. {remedy}")


def feature_store(model: Any, family: Family, arguments: Any, limit: float) -> FeatureStore:
    """The feature cache for a run's vision tower, projector, device and dtypes; `limit` in GiB."""
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
    """Total bytes of the files in the subfolders of a folder.

    Temporary files of killed processes are deleted.
    """
    size = 0
    with suppress(OSError):
        for model in folder.iterdir():
            with suppress(OSError), os.scandir(model) as files:
                for file in files:
                    with suppress(FileNotFoundError):  # another process renamed or deleted it
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
