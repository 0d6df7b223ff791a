"""What a reference says of answers, kept from one run to the next: its log-probabilities never change, and asking is a third of a DPO step.

Each answer is found by what the model reads: prompt, answer and pixels; each folder is of one reference, with its weights, types and
libraries. What is not there is asked for and written, shard by shard, each whole or not at all. Nothing is trusted: a shard that is not
what was written is thrown away, and at every start the first answers that are all there are asked for once more and compared.
"""

from __future__ import annotations

import hashlib
import json
import sys
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

WRITTEN_TOGETHER = 512
"""Answers of a shard; a kill loses fewer than these."""
NEAR, NEAR_IN_16_BITS = 1e-4, 0.02
"""How far the same reference may be from what is stored, per token on average: rounding."""


class Store:
    """Log-probabilities of answers, token by token, in a folder that runs share. Every process writes shards of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, torch.Tensor] = {}
        self._new: dict[str, torch.Tensor] = {}
        for shard in sorted(folder.glob("*.safetensors")):
            self._known |= _read(shard)

    def find(self, key: str, tokens: int) -> torch.Tensor | None:
        """(tokens,) float32; None where the answer is not there, or has other tokens."""
        found = self._known.get(key)
        return found if found is not None and len(found) == tokens else None

    def add(self, key: str, log_probs: torch.Tensor) -> None:
        """One answer more, (tokens,)."""
        self._known[key] = self._new[key] = log_probs.detach().float().cpu().clone()
        if len(self._new) >= WRITTEN_TOGETHER:
            self.write()

    def write(self) -> None:
        """Write what is new: beside, and renamed."""
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
        """Throw everything away."""
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
    except FileNotFoundError:  # another run threw it away
        return {}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        print(f"{shard}: thrown away, and asked for anew: {error}", file=sys.stderr, flush=True)
        shard.unlink(missing_ok=True)
        return {}


def _sha256(values: torch.Tensor, index: dict[str, Any]) -> str:
    return hashlib.sha256(values.numpy().tobytes() + json.dumps(index).encode()).hexdigest()


class StoredReference:
    """A reference that is asked only for what is not stored."""

    def __init__(self, store: Store, agreed: Callable[[bool], bool], near: float = NEAR):
        """`agreed` says whether something holds on every process: where weights are divided, all ask or none."""
        self.store, self.agreed, self.near, self.checked = store, agreed, near, False

    def log_probs(self, keys: Sequence[str], mask: torch.Tensor, ask: Callable[[], torch.Tensor]) -> torch.Tensor:
        """(answers, length - 1), 0 where `mask` (answers, length - 1) says that nothing is supervised. `ask` gives the same anew."""
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
        """Forget everything, on every process, where the reference does not say what is stored."""
        apart = ((stored - asked).abs().sum(1) / mask.sum(1).clamp(min=1)).max().item()
        if self.agreed(apart <= self.near):
            return
        print(
            f"{self.store.folder}: what is stored is not what the reference says (here off by {apart:.2g} per token): asked for anew",
            file=sys.stderr,
            flush=True,
        )
        self.store.forget()


class KeepReference(TrainerCallback):
    """Writes what is new with every checkpoint, and at the end."""

    def __init__(self, store: Store):
        self.store = store

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write it."""
        self.store.write()

    on_train_end = on_save


def stored_reference(weights: str, dtype: torch.dtype, reference: str, arguments: Any) -> StoredReference:
    """The cache of one reference model: of which weights, in which dtype and of which kind (align/models/reference.py)."""
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
