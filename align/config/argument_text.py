"""What a user typed for a setting that is text: taken as it is typed, where YAML would make a list or a number of it."""

from __future__ import annotations

from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from align.errors import UserError


def as_typed(schema: type, parts: list[str], text: str, value: Any) -> Any:
    """The value of an argument: its own text where the schema wants text and YAML reads `007`, `true` or `a,b` as something else.

    Raises UserError for a list, unless its text is a path that exists.
    """
    if not isinstance(value, list | bool | int | float) or _type_of(schema, parts) is not str:
        return value
    if isinstance(value, list) and text.startswith("["):
        return value  # a list in so many words: the schema refuses it
    if isinstance(value, list) and not Path(text).expanduser().exists():
        key = ".".join(parts)
        raise UserError(
            f"argument '{key}={text}': {key} takes one value, and the comma makes a list of {len(value)}; put a value with a comma in "
            f"double quotes, inside the shell's own: '{key}=\"{text}\"'"
        )
    return text


def _type_of(schema: type, parts: list[str]) -> Any:
    """The type of a dotted key, without its `None`; None where the schema does not say."""
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
