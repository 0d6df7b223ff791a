"""A field of the settings, with its default and its help text."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(default: Any, help: str) -> Any:
    """Return a dataclass field with a help text; every instance gets its own copy of a list or dict."""
    if isinstance(default, list | dict | type):
        factory = default if isinstance(default, type) else default.copy
        return field(default_factory=factory, metadata={"help": help})
    return field(default=default, metadata={"help": help})
