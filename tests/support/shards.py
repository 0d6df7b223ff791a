"""Shards of a stored reference that are whole and not what the reference says."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from align.methods.reference_store import _sha256


def falsify(shards: Iterable[Path]) -> None:
    """Every log-probability is another one, and the checksum fits it."""
    for shard in shards:
        with safe_open(shard, "pt") as file:
            values, told = file.get_tensor("log_probs") + 0.01, file.metadata()
        told["sha256"] = _sha256(values, json.loads(told["index"]))
        save_file({"log_probs": values}, shard, told)
