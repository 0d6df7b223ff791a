"""Checkpoint integrity: a list of its files, saved with the checkpoint and compared before a run resumes from it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from align.errors import UserError
from align.files import read_json, write_json

LIST = "files.json"
"""File in a checkpoint: {file: [bytes, sha256 or null]}."""
HASHED = 2**30
"""Files up to this many bytes are hashed; for larger files, e.g. a full model's optimizer, only the
size is compared.
"""
STATE = "trainer_state.json"


def write_list(checkpoint: Path) -> None:
    """Write the list of files of a complete checkpoint."""
    write_json(checkpoint / LIST, {name: _stamp(checkpoint / name) for name in _names(checkpoint)})


def damage_of(checkpoint: Path) -> str | None:
    """The reason why a run cannot resume from a checkpoint, in one line; None if it can."""
    try:
        state = read_json(checkpoint / STATE)
    except UserError:
        return f"{STATE} is absent or damaged"
    if not isinstance(state, dict) or "global_step" not in state:
        return f"{STATE} does not contain a trainer's state"
    if not (checkpoint / LIST).is_file():  # saved by an earlier version
        return _unreadable(checkpoint)
    try:
        listed = dict(read_json(checkpoint / LIST))
    except (UserError, TypeError, ValueError):
        return f"{LIST} is damaged"
    for name, stamp in listed.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is absent"
        if _stamp(file) != stamp:
            return f"{name} has changed since it was saved"
    return None


def _names(checkpoint: Path) -> list[str]:
    return sorted(str(file.relative_to(checkpoint)) for file in checkpoint.rglob("*") if file.is_file())


def _stamp(file: Path) -> list[Any]:
    size = file.stat().st_size
    if size > HASHED:
        return [size, None]
    with file.open("rb") as content:
        return [size, hashlib.file_digest(content, "sha256").hexdigest()]


def _unreadable(folder: Path) -> str | None:
    """The reason why a file must be damaged: truncated JSON, safetensors or zip archives of torch."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            if file.suffix == ".json":
                json.loads(file.read_bytes())
            elif file.suffix == ".safetensors":
                with safe_open(file, "np"):  # compares its header with its size
                    pass
            elif file.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(file):
                return f"{file.name} is truncated"
        except (ValueError, OSError, SafetensorError) as error:
            return f"{file.name}: {error}"
    return None
