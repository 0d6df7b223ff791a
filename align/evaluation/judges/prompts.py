"""Prompts of a judge: its own, or the user's file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from align.errors import UserError

Prompts = Mapping[str, str]
"""{name: template}"""


PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def prompts_of(
    owner: str, own: Prompts, places: Mapping[str, tuple[tuple[str, ...], ...]], file: str | None
) -> Prompts:
    """Own prompts, or the prompts of a YAML file with the same names. `owner` is the judge or role in errors.

    `places` lists the placeholders of each text: a tuple of accepted names for each; a tuple with
    "" marks an optional one. Raises UserError for a missing or unknown name, and for a missing or
    unknown placeholder.
    """
    if file is None:
        return own
    where = f"{owner}: prompt={file}"
    given = _read(file, where)
    expected = f"expected a text for each of {', '.join(own)}"
    if not isinstance(given, dict) or set(given) != set(own):
        found = ", ".join(map(str, given)) if isinstance(given, dict) else type(given).__name__
        raise UserError(f"{where}: {expected}; found {found}")
    for name, text in given.items():
        _check_places(f"{where}: {name}", str(text), places.get(name, ()))
    return {name: str(given[name]) for name in own}


def _check_places(where: str, text: str, places: tuple[tuple[str, ...], ...]) -> None:
    found = set(PLACEHOLDER.findall(text))
    known = {name for names in places for name in names if name}
    if unknown := sorted(found - known):
        takes = ", ".join(f"{{{name}}}" for name in sorted(known)) or "none"
        raise UserError(f"{where}: unknown placeholder {{{unknown[0]}}}. Known placeholders: {takes}")
    for names in places:
        if not found & set(names) and "" not in names:
            raise UserError(
                f"{where}: the text lacks the placeholder {' or '.join(f'{{{name}}}' for name in names)}. Add it."
            )


def _read(file: str, where: str) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.create(Path(file).read_text(encoding="utf-8")), resolve=False)
    except Exception as error:
        raise UserError(f"{where}: not readable as YAML: {error}") from error


def hash_of(prompts: Prompts) -> str:
    """Hash of all prompts: 16 hex digits."""
    return hashlib.sha256(json.dumps(dict(prompts), sort_keys=True).encode()).hexdigest()[:16]
