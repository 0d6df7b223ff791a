"""Help texts: the keys of a configuration, with their defaults and meanings."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any


def describe(schema: Any, prefix: str = "") -> str:
    """The keys of a configuration with their defaults and meanings."""
    lines = []
    for field in fields(schema):
        default = field.default_factory() if callable(field.default_factory) else field.default
        if is_dataclass(default):
            lines.append(describe(type(default), f"{prefix}{field.name}."))
        else:
            shown = ",".join(map(str, default)) if isinstance(default, list) else default
            lines.append(
                f"  {prefix + field.name:<26} {field.metadata.get('help', '')} [{'' if shown in (None, {}) else shown}]"
            )
    return "\n".join(lines)
