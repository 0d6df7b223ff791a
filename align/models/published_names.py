"""Names of LLaVA's vision weights as in the published checkpoints.

transformers 5.19 to 5.23 write `vision_tower.embeddings...` for a model that was not loaded from a
published checkpoint, where published ones have `vision_tower.vision_model.embeddings...`.
transformers reads both; vLLM reads only the published names.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from align.files import read_json, write_json
from align.models.presence import INDEX

PARTS = ("embeddings", "encoder", "pre_layrnorm", "post_layernorm")
"""Modules of CLIP's vision model."""
OWN, PUBLISHED = "vision_tower.", "vision_tower.vision_model."
FAMILIES = ("llava",)


def published_name(name: str) -> str:
    """The published name of a weight."""
    before, found, rest = name.partition(OWN)
    return f"{before}{PUBLISHED}{rest}" if found and rest.split(".")[0] in PARTS else name


def lacks_published_names(folder: Path) -> bool:
    """Whether a model folder has weights under other names than the published checkpoints."""
    if read_json(folder / "config.json").get("model_type") not in FAMILIES:
        return False
    return any(published_name(name) != name for file in folder.glob("*.safetensors") for name in _names(file))


def use_published_names(folder: Path) -> None:
    """Rename the weights in a model folder; other folders stay unchanged."""
    if not lacks_published_names(folder):
        return
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            renamed = {published_name(name): weights.get_tensor(name) for name in _names(file)}
            metadata = weights.metadata()
        draft = file.with_suffix(".draft")
        save_file(renamed, draft, metadata)
        draft.replace(file)
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        index["weight_map"] = {published_name(name): file for name, file in index["weight_map"].items()}
        write_json(folder / INDEX, index)


def _names(file: Path) -> list[str]:
    with file.open("rb") as content:
        header = content.read(int.from_bytes(content.read(8), "little"))
    return [name for name in json.loads(header) if name != "__metadata__"]
