"""The image of docs/architecture.md: the layers of the code, a box for each room, as wide as its
lines:  python docs/rooms.py

Layers are read from `[tool.importlinter]` in pyproject.toml, which `make lint` holds; lines are
counted in align/.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).parent / "images" / "rooms.png"
PIPELINE = (
    "config",
    "data",
    "families",
    "batches",
    "models",
    "answering",
    "defences",
    "methods",
    "evaluation",
    "report",
    "training",
)
"""Rooms that a reader of the pipeline needs; the others can be left out."""
LEAST = 1800
"""Lines that the narrowest box is drawn with."""


def lines_of(room: str) -> int:
    """Lines of a folder or file of the package."""
    path = ROOT / "align" / room
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def layers() -> list[list[str]]:
    """Rooms from the highest layer to the lowest, as the contract has them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    return [[room.strip() for room in layer.replace("|", ":").split(":")] for layer in contract["layers"]]


def main() -> None:
    """Draw."""
    rows = layers()
    figure, axis = plt.subplots(figsize=(13, 0.5 * len(rows) + 0.5))
    for i, rooms in enumerate(rows):
        x = 0.0
        for room in rooms:
            lines = lines_of(room)
            width = max(lines, LEAST)
            colour = "#cfe3f5" if room in PIPELINE else "#ececec"
            axis.add_patch(
                FancyBboxPatch(
                    (x, -i), width - 120, 0.7, boxstyle="round,pad=0,rounding_size=0.1", fc=colour, ec="#777"
                )
            )
            axis.text(x + (width - 120) / 2, -i + 0.35, f"{room}  {lines:,}", ha="center", va="center", fontsize=8.5)
            x += width
    axis.set_xlim(-100, max(sum(max(lines_of(room), LEAST) for room in rooms) for rooms in rows))
    axis.set_ylim(-len(rows) + 0.6, 1)
    axis.set_title(
        "Rooms of align/ and their lines. Imports go down only. Blue: the pipeline.", loc="left", fontsize=10
    )
    axis.axis("off")
    figure.savefig(FILE, dpi=110, bbox_inches="tight", metadata={"Software": None})
    print(FILE)


if __name__ == "__main__":
    main()
