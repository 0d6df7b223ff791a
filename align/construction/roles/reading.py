"""Replies -> values: the JSON forms that the prompts ask for, and plain texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from align.evaluation.judges import refusal_match
from align.evaluation.judges.untrusted import unfenced
from align.rows import Row

BEGINNING = 200
"""Characters at the start of a reply in which a refusal is looked for."""


class Unread(ValueError):
    """A reply that has not the form that was asked for."""


def is_refusal(reply: str) -> bool:
    """Whether a reply begins with a phrase of refusal."""
    return refusal_match.judge(Row(id="", prompt=""), reply[:BEGINNING]).verdict == "refusal"


def text(reply: str) -> str:
    """A plain text without quotes around it. Raises Unread if it is empty."""
    said = unfenced(reply).strip()
    if len(said) > 1 and said[0] == said[-1] and said[0] in "\"'":
        said = said[1:-1].strip()
    if not said:
        raise Unread("an empty reply")
    return whole(said)


def whole(text: str) -> str:
    """The text. Raises Unread for half a character, which cannot be stored: JSON allows an escape that is cut."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unread("half a character") from error
    return text


def texts(most: int) -> Callable[[str], list[str]]:
    """A reader of a JSON list of at least one text; more than `most` are ignored, repeated ones too."""

    def read(reply: str) -> list[str]:
        found = _json(reply, "[", "]")
        if not isinstance(found, list):
            raise Unread("expected a JSON list of texts")
        return _texts(found)[:most]

    return read


def scene(most: int) -> Callable[[str], tuple[str, list[str]]]:
    """A reader of {"description": text, "queries": [texts]}; an empty list of queries is allowed."""

    def read(reply: str) -> tuple[str, list[str]]:
        found = _object(reply)
        said, queries = found.get("description"), found.get("queries")
        if not isinstance(said, str) or not said.strip() or not isinstance(queries, list):
            raise Unread('expected {"description": <text>, "queries": [<texts>]}')
        return whole(said.strip()), _texts(queries)[:most] if queries else []

    return read


def switches(*names: str) -> Callable[[str], dict[str, Any]]:
    """A reader of a JSON object in which each name is true or false; other keys are kept."""

    def read(reply: str) -> dict[str, Any]:
        found = _object(reply)
        for name in names:
            if not isinstance(found.get(name), bool):
                raise Unread(f"expected `{name}` to be true or false, found {found.get(name)!r}")
        return found

    return read


def _object(reply: str) -> dict[str, Any]:
    found = _json(reply, "{", "}")
    if not isinstance(found, dict):
        raise Unread("expected a JSON object")
    return found


def _json(reply: str, opening: str, closing: str) -> Any:
    """The JSON in a reply; words around it are ignored if it is the only one."""
    said = unfenced(reply)
    for candidate in (said, _between(said, opening, closing)):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    raise Unread("not valid JSON")


def _between(said: str, opening: str, closing: str) -> str:
    found = re.search(f"{re.escape(opening)}.*{re.escape(closing)}", said, re.DOTALL)
    return found.group() if found else ""


def _texts(values: list[Any]) -> list[str]:
    if not values or not all(isinstance(value, str) and value.strip() for value in values):
        raise Unread("expected a list of texts that are not empty")
    if all(map(is_refusal, values)):
        raise Unread("a refusal")
    return list(dict.fromkeys(whole(value.strip()) for value in values))
