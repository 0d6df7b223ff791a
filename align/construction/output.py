"""The result: a file of twins for the controlled track, a benchmark file, a suite, and a list of
images with their licences.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from align.construction.item import Item
from align.construction.steps.paint import PAINTED, asked
from align.files import write_text
from align.settings import ConstructConfig

TWINS, BENCHMARK, IMAGES, SUITE = "twins.jsonl", "benchmark.jsonl", "images.jsonl", "suite.yaml"
RESULT = (TWINS, BENCHMARK, IMAGES, SUITE)
UNKNOWN = "unknown"
CONTROLLED = {
    "text_leak": "leak",
    "image_leak": "leak",
    "shuffled_leak": "leak",
    "image_free": "free",
    "caption_free": "free",
}
"""{arm of the controlled track: its subset of the twins}"""


def write_result(items: Sequence[Item], config: ConstructConfig, folder: Path) -> list[str]:
    """Write the files of the result -> their names. Files that cannot be made of these items are removed."""
    tables = {
        TWINS: [record for item in items if (record := twin_of(item)) is not None],
        BENCHMARK: [benchmark_row(item) for item in items],
        IMAGES: images_of(items),
    }
    written = []
    for name, records in tables.items():
        if records:
            write_text(folder / name, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records))
            written.append(name)
        else:
            (folder / name).unlink(missing_ok=True)
    if TWINS in written:
        write_text(folder / SUITE, suite(config, folder))
        written.append(SUITE)
    else:
        (folder / SUITE).unlink(missing_ok=True)
    return written


def twin_of(item: Item) -> dict[str, Any] | None:
    """The item as a row of the source `twins` (align/data/twins.py); None without a safe twin."""
    if item.image is None or item.benign_image is None:
        return None
    return {
        "id": item.id,
        "image": item.image,
        "benign_image": item.benign_image,
        "caption": item.caption,
        "benign_caption": item.benign_caption,
        "query_leak": item.query_leak,
        "query_free": asked(item),
        "response": item.response,
        "benign_response": item.benign_response,
        "category": item.category,
        "subcategory": item.subcategory,
        "element": item.element,
    }


def benchmark_row(item: Item) -> dict[str, Any]:
    """The item as a row of the benchmark `local`: the rewritten query with the unsafe image."""
    row = {
        "id": item.id,
        "prompt": asked(item),
        "image": item.image,
        "role": "harmful",
        "harm_in": "image" if item.image else "text",
        "caption": item.caption,
        "response": item.response,
        "category": item.category,
        "subcategory": item.subcategory,
        "query_leak": item.query_leak,
        "description": item.description,
    }
    return {key: value for key, value in row.items() if value is not None}


def images_of(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Origin and licence of each image, once."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        if item.image:
            found.setdefault(
                item.image, {"image": item.image, "origin": item.origin, "licence": item.licence or UNKNOWN}
            )
        if item.benign_image:
            origin = f"the safe twin of {item.image}, made by the twin editor"
            edited = item.licence not in (None, PAINTED)
            licence = f"{item.licence}, and {PAINTED}" if edited else PAINTED
            found.setdefault(item.benign_image, {"image": item.benign_image, "origin": origin, "licence": licence})
    return list(found.values())


def licences(items: Sequence[Item]) -> dict[str, int]:
    """{licence: number of images}."""
    return dict(Counter(image["licence"] for image in images_of(items)))


def suite(config: ConstructConfig, folder: Path) -> str:
    """A suite for `align compare track=controlled suite=<this file>`: the twins as data of every arm."""
    path = str((folder / TWINS).absolute())
    benign = {"source": "twins", "subset": "benign", "path": path, "view": "image", "rows": None}
    recipes = {
        f"controlled/{arm}": {
            "data": {
                "harmful": {"source": "twins", "subset": subset, "path": path, "rows": None},
                "benign": benign | ({"caption_share": 0.5} if arm == "caption_free" else {}),
            }
        }
        for arm, subset in CONTROLLED.items()
    }
    header = (
        "# The controlled track on constructed twins. Paths are absolute: after moving the folder, repeat `align "
        f"construct`.\n#   align compare track=controlled suite={shlex.quote(str(folder / SUITE))} model=<names>\n"
    )
    base = {"base": config.suite_base} if config.suite_base else {}
    return header + OmegaConf.to_yaml(OmegaConf.create(base | {"recipes": recipes}))
