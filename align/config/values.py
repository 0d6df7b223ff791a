"""Values of `key=value` arguments, and configurations as plain containers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from omegaconf import OmegaConf

from align.errors import UserError

SEXAGESIMAL = re.compile(r"[-+]?\d+(:\d+)+(\.\d*)?")


def parse_argument(argument: str, text: str) -> Any:
    """`parse_value` of an argument. Raises UserError for an unclosed list, mapping or quoted text."""
    value = parse_value(text)
    if isinstance(value, str) and (lacking := _not_closed(text)):
        raise UserError(
            f"argument {argument!r}: the first {text[0]} is not closed by {lacking}; close it or, for a literal text, "
            f"use quotes: {argument.partition('=')[0]}='\"...\"'"
        )
    return value


def _not_closed(text: str) -> str | None:
    """The character that would close the first bracket or quote of a text; None if it is closed."""
    if text[:1] in ("'", '"'):
        return text[0] if len(text) == 1 or not text.endswith(text[0]) else None
    pairs = {"[": "]", "{": "}"}
    closing = pairs.get(text[:1])
    return closing if closing and text.count(text[0]) > text.count(closing) else None


def parse_value(text: str) -> Any:
    """The value of a `key=value` argument: YAML; a bare comma makes a list."""
    quoted = text.startswith(("[", "{", '"', "'"))
    if "," in text and not quoted:
        return [parse_value(item) for item in text.split(",")]
    if text.lower() in ("yes", "no", "on", "off") or (" #" in text and not quoted) or SEXAGESIMAL.fullmatch(text):
        # YAML reads yes/no/on/off as booleans (train.save_strategy=no means the word), drops text after " #", and
        # reads 2:00:00 as a number of seconds.
        return text
    try:
        return OmegaConf.to_container(OmegaConf.create(f"value: {text}"))["value"]
    except Exception:  # not valid YAML, e.g. a path with a colon: a plain string
        return text


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings -> (dotted key, leaf) pairs."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain containers, for YAML, JSON and hashing."""
    return asdict(config)


def nested(parts: Sequence[str], value: Any) -> Any:
    """A value under its key: (["a", "b"], 1) -> {"a": {"b": 1}}."""
    for part in reversed(parts):
        value = {part: value}
    return value


def key_parts(key: str) -> list[str]:
    """Split a dotted key into parts; a judge or benchmark `module:name` is one part, even if it contains dots."""
    found = re.fullmatch(r"(.*?\b(?:judge\.each|settings))\.([\w.]+:\w+)(?:\.(.+))?", key)
    if not found:
        return key.split(".")
    before, name, after = found.groups()
    return [*before.split("."), name, *(after.split(".") if after else [])]
