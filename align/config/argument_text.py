"""Arguments for text settings: keep the text as typed where YAML would parse a list or a number."""

from __future__ import annotations

from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from align.errors import UserError


def as_typed(schema: type, parts: list[str], text: str, value: Any) -> Any:
    """Return an argument's value; for a text setting, keep `007`, `true` or `a,b` as text.

    Raises UserError for a list, unless its text is a path that exists.
    """
    if not isinstance(value, list | bool | int | float) or _type_of(schema, parts) is not str:
        return value
    if isinstance(value, list) and text.startswith("["):
        return value  # an explicit list: the schema rejects it
    if isinstance(value, list) and not Path(text).expanduser().exists():
        key = ".".join(parts)
        raise UserError(
            f"argument '{key}={text}': {key} takes one value, but the comma makes a list of {len(value)}; if the "
            f"value contains a comma, put it in double quotes inside the shell's quotes: '{key}=\"{text}\"'"
        )
    return text


def _type_of(schema: type, parts: list[str]) -> Any:
    """Return the type of a dotted key without `None`, or None if the schema does not define it."""
    kind: Any = schema
    for part in parts:
        if isinstance(kind, type) and is_dataclass(kind):
            kind = _hints(kind).get(part)
        else:
            kind = get_args(kind)[1] if get_origin(kind) is dict else None
        if get_origin(kind) in (Union, UnionType):
            kinds = [one for one in get_args(kind) if one is not NoneType]
            kind = kinds[0] if len(kinds) == 1 else None
    return kind


@cache
def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema)
