"""Read the weights of a checkpoint folder: one file or shards, safetensors or trusted pickles."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from align.errors import UserError
from align.files import read_json

Weights = dict[str, torch.Tensor]

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
LORA_FILES = ("adapter_config.json", "adapter_model.bin", "adapter_model.safetensors", "non_lora_trainables.bin")


def read_weights(folder: Path, trust_pickle: bool = False) -> Weights:
    """{name: tensor} of all shards, memory-mapped.

    Raises UserError for a folder without weights, with only an adapter, with untrusted pickles, or
    with shards that are missing, damaged, or differ from their index.
    """
    found = [name for name in LORA_FILES if (folder / name).is_file()]
    if found:
        raise UserError(
            f"{folder}: {found[0]} shows that these are LoRA weights for another model, not a model. Merge them into "
            "it with the code of their training (LLaVA: scripts/merge_lora_weights.py --model-path <these> "
            "--model-base <the base> --save-model-path <folder>), then convert that folder."
        )
    for name, read in ((SAFE, load_file), (PICKLED, _unpickled)):
        index, single = folder / f"{name}.index.json", folder / name
        if index.is_file() or single.is_file():
            if name == PICKLED and not trust_pickle:
                raise UserError(
                    f"{folder}: the weights are pickles ({PICKLED}), which can contain code and are not read by "
                    "default. To read them, give trust_pickle=true; everything except tensors is still rejected."
                )
            return _sharded(index, read) if index.is_file() else _read(single, read)
    raise UserError(
        f"{folder}: found no weights; expected {SAFE} or {PICKLED}, or shards with an index ({SAFE}.index.json)"
    )


def _sharded(index: Path, read: Callable[[Path], Weights]) -> Weights:
    """Tensors of an index from its shards. Raises UserError if index and shards do not match."""
    places: dict[str, str] = read_json(index)["weight_map"]
    shards = sorted(set(places.values()))
    absent = [shard for shard in shards if Path(shard).name != shard or not (index.parent / shard).is_file()]
    if absent:
        raise UserError(f"{index}: shards of the index are missing in the folder: {', '.join(absent)}")
    weights: Weights = {}
    for shard in shards:
        found = _read(index.parent / shard, read)
        expected = {name for name, place in places.items() if place == shard}
        for name in sorted(expected ^ found.keys()):
            where = "is named by the index but not in it" if name in expected else "is in it but not named by the index"
            raise UserError(f"{index.parent / shard}: the tensor {name} {where}. Download the checkpoint again.")
        weights |= found
    return weights


def _read(file: Path, read: Callable[[Path], Weights]) -> Weights:
    try:
        weights = read(file)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{file}: cannot be read as weights: {str(error).splitlines()[0]}") from error
    others = [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise UserError(f"{file}: {others[0]!r} is not a tensor; expected a mapping of names to tensors")
    return weights


def _unpickled(file: Path) -> Weights:
    """A pickle with only tensors: torch (weights_only) calls no code of the file."""
    # Files from before torch 1.6 are not zip archives and cannot be memory-mapped.
    weights = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    if not isinstance(weights, dict):
        raise UserError(f"{file}: found a {type(weights).__name__}; expected a mapping of names to tensors")
    return weights
