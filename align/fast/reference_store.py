"""A disk cache of a reference model's log-probabilities, which runs share.

They never change, and computing them takes a third of a DPO step. The key of an answer is a hash of
what the model reads: prompt, answer and pixels. A folder belongs to one reference model: its
weights, dtypes and library versions. Missing answers are computed and written atomically, in
shards. Shards are verified: a shard whose content has changed is deleted. In every run, the first
batch whose answers are all cached is also computed and compared.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState
from accelerate.utils import reduce
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import TrainerCallback

from align.files import cache_folder

LOG = logging.getLogger(__name__)

WRITTEN_TOGETHER = 512
"""Number of answers in a shard. A killed run loses fewer than this."""
NEAR, NEAR_IN_16_BITS = 1e-4, 0.02
"""Maximum mean difference per token between new and cached log-probabilities of the same model,
due to rounding."""


class Store:
    """Log-probabilities of answers, per token, in a folder that runs share.

    Every process writes its own shards.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, torch.Tensor] = {}
        self._new: dict[str, torch.Tensor] = {}
        for shard in sorted(folder.glob("*.safetensors")):
            self._known |= _read(shard)

    def find(self, key: str, tokens: int) -> torch.Tensor | None:
        """(tokens,) float32; None if the answer is not cached, or has another number of tokens."""
        found = self._known.get(key)
        return found if found is not None and len(found) == tokens else None

    def add(self, key: str, log_probs: torch.Tensor) -> None:
        """Add the log-probabilities of an answer (tokens,)."""
        self._known[key] = self._new[key] = log_probs.detach().float().cpu().clone()
        if len(self._new) >= WRITTEN_TOGETHER:
            self.write()

    def write(self) -> None:
        """Write the new answers to a shard, under a temporary name that is then renamed."""
        if not self._new:
            return
        values, index, start = torch.cat(list(self._new.values())), {}, 0
        for key, one in self._new.items():
            index[key] = [start, start + len(one)]
            start += len(one)
        draft = self.folder / f".{uuid.uuid4().hex}"
        save_file({"log_probs": values}, draft, {"index": json.dumps(index), "sha256": _sha256(values, index)})
        draft.rename(self.folder / f"{draft.name[1:]}.safetensors")
        self._new = {}

    def forget(self) -> None:
        """Delete all shards and forget all answers."""
        self._known, self._new = {}, {}
        for shard in self.folder.glob("*.safetensors"):
            shard.unlink(missing_ok=True)


def _read(shard: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(shard, "pt") as file:
            values, told = file.get_tensor("log_probs"), file.metadata()
        index = json.loads(told["index"])
        if told["sha256"] != _sha256(values, index):
            raise ValueError("its content has changed")
        return {key: values[start:end] for key, (start, end) in index.items()}
    except FileNotFoundError:  # another run deleted it
        return {}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        LOG.warning(f"{shard}: deleted, and its log-probabilities are computed again: {error}")
        shard.unlink(missing_ok=True)
        return {}


def _sha256(values: torch.Tensor, index: dict[str, Any]) -> str:
    return hashlib.sha256(values.numpy().tobytes() + json.dumps(index).encode()).hexdigest()


class StoredReference:
    """A reference model that computes only log-probabilities that are not cached."""

    def __init__(self, store: Store, agreed: Callable[[bool], bool], near: float = NEAR):
        """`agreed` returns whether a condition holds on every process.

        If weights are divided among processes, all of them must compute, or none.
        """
        self.store, self.agreed, self.near, self.checked = store, agreed, near, False

    def log_probs(self, keys: Sequence[str], mask: torch.Tensor, ask: Callable[[], torch.Tensor]) -> torch.Tensor:
        """(answers, length - 1), 0 where `mask` (answers, length - 1) is False.

        `ask` computes them with the model.
        """
        counts = mask.sum(1).tolist()
        found = [self.store.find(key, tokens) for key, tokens in zip(keys, counts, strict=True)]
        there = self.agreed(all(one is not None for one in found))
        stored = _placed([one for one in found if one is not None], mask) if there else None
        if stored is not None and self.checked:
            return stored
        asked = ask().detach().float().masked_fill(~mask, 0.0)
        if stored is not None:
            self.checked = True
            self._compare(stored, asked, mask)
        for key, row, supervised in zip(keys, asked, mask, strict=True):
            if self.store.find(key, int(supervised.sum())) is None:
                self.store.add(key, row[supervised])
        return asked

    def _compare(self, stored: torch.Tensor, asked: torch.Tensor, mask: torch.Tensor) -> None:
        """Delete the cache, on every process, if it differs from the reference model."""
        apart = ((stored - asked).abs().sum(1) / mask.sum(1).clamp(min=1)).max().item()
        if self.agreed(apart <= self.near):
            return
        LOG.warning(
            f"{self.store.folder}: cached log-probabilities differ from the reference model's (on this process by "
            f"{apart:.2g} per token); they are deleted and computed again"
        )
        self.store.forget()


class KeepReference(TrainerCallback):
    """Writes new log-probabilities to the cache with every checkpoint and at the end."""

    def __init__(self, store: Store):
        self.store = store

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write new log-probabilities."""
        self.store.write()

    on_train_end = on_save


def stored_reference(weights: str, dtype: torch.dtype, reference: str, arguments: Any) -> StoredReference:
    """The cache for a reference model's weights, dtype and kind (align/models/reference.py)."""
    processes = PartialState()
    computed_as = [str(dtype), arguments.bf16, arguments.fp16, torch.__version__, transformers.__version__]
    told = json.dumps([weights, reference, *computed_as])
    folder = cache_folder("reference") / hashlib.sha256(told.encode()).hexdigest()[:16]

    def agreed(here: bool) -> bool:
        if processes.num_processes == 1:
            return here
        count = reduce(torch.tensor(float(here), device=processes.device), "sum")
        return bool(count.item() == processes.num_processes)

    in_16_bits = arguments.bf16 or arguments.fp16 or dtype.itemsize < 4
    return StoredReference(Store(folder), agreed, NEAR_IN_16_BITS if in_16_bits else NEAR)


def _placed(found: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    values = torch.cat(list(found)).to(mask.device)
    return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, values)
