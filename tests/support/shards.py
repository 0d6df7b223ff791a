"""Stored files that are whole, and not what the model says."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from align.fast.feature_store import _sha256 as sha256_of_features
from align.fast.reference_store import _sha256


def falsify(shards: Iterable[Path]) -> None:
    """Every log-probability is another one, and the checksum fits it."""
    for shard in shards:
        with safe_open(shard, "pt") as file:
            values, told = file.get_tensor("log_probs") + 0.01, file.metadata()
        told["sha256"] = _sha256(values, json.loads(told["index"]))
        save_file({"log_probs": values}, shard, told)


def falsify_features(file: Path) -> None:
    """An image's features are others, and the checksum fits them."""
    features = load_file(file)["features"] * 1.01
    save_file({"features": features}, file, {"sha256": sha256_of_features(features)})
