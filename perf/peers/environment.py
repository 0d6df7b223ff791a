"""An environment for each peer, in .venv-peers/, which git ignores: their versions of transformers,
trl and peft exclude each other.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / ".venv-peers"


def constraints(peer: str) -> Path:
    """The file of a peer's tried versions; its first requirement is the peer itself."""
    return HERE / f"{peer}.txt"


WANTED_TOO = ("torchvision", "qwen-vl-utils")
"""What a peer needs for these models and does not require."""


def requirements(peer: str) -> list[str]:
    """What is installed by name: the peer, and what it needs beyond its own requirements."""
    pinned = [line for line in constraints(peer).read_text().splitlines() if line and not line.startswith("#")]
    return [pinned[0], *(line for line in pinned if line.split("==")[0] in WANTED_TOO)]


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, which is created where it is missing or of other
    versions (1.8 GB, minutes).
    """
    folder, wanted = FOLDER / peer, constraints(peer).read_text()
    python, ready = folder / "bin" / "python", folder / "ready.txt"
    if not ready.is_file() or ready.read_text() != wanted:
        print(f"Setting up {folder} once ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        subprocess.run([*install, "-c", str(constraints(peer)), *requirements(peer)], check=True)
        ready.write_text(wanted)
    return python
