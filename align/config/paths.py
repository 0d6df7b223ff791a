"""Paths in settings: expand `~`, and make paths that are stored with a run absolute."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
READ = ("path", "image_root", "answers", "data_root", "adapter", "prompt")
"""Settings that name files to read. They are stored with a run, and may be used later from another folder."""
WRITTEN = ("output_dir", "output", "run", "runs", "checkpoint", "configs", "vision_tower")
"""Settings that only the command itself uses."""


def resolve_paths(config: Any) -> None:
    """Expand `~` in every path of a configuration, and make existing paths to read (READ) absolute."""
    for field in fields(config) if is_dataclass(config) else ():
        value = getattr(config, field.name)
        if isinstance(value, dict):
            for key, inner in value.items():
                resolve_paths(inner)
                if field.name == "each" and isinstance(inner, dict):  # settings of one judge, still a plain dict
                    value[key] = {name: _resolved(name, of) for name, of in inner.items()}
        elif is_dataclass(value):
            resolve_paths(value)
        else:
            setattr(config, field.name, _resolved(field.name, value))


def _resolved(name: str, value: Any) -> Any:
    if name not in (*READ, *WRITTEN):
        return value
    if isinstance(value, list):
        return [_resolved(name, one) for one in value]
    if not isinstance(value, str):
        return value
    expanded = Path(value).expanduser() if value.startswith("~") else Path(value)
    if name in READ and expanded.exists():  # otherwise it may be the id of a model or dataset on the Hub
        return str(expanded.absolute())
    return str(expanded) if value.startswith("~") else value


def is_hub_id(path: str) -> bool:
    """Whether a path is an id `<owner>/<name>` on the Hugging Face Hub, not a folder of this machine."""
    return HUB_ID.fullmatch(path) is not None and not Path(path).exists()


def own_name(path: str) -> str:
    """A folder's own name, without its place on this machine; a Hub id as it is."""
    return Path(path).resolve().name if Path(path).is_dir() else path
