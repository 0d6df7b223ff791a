"""Second questions that are answered with yes or no."""

from __future__ import annotations

import re

from align.defences.defence import digest
from align.errors import UserError

UNCLEAR = ("act", "pass")
"""What a defence does if a reply is neither yes nor no."""
FIRST_WORD = re.compile(r"[^\w]*(yes|no)\b", re.IGNORECASE)


def is_yes(reply: str) -> bool | None:
    """Whether a reply begins with yes (True) or no (False); None for any other reply."""
    found = FIRST_WORD.match(reply)
    return found and found[1].lower() == "yes"


def quoted(name: str, text: str) -> str:
    """A text between two marked lines with its own hash, which it cannot contain: it is material, no instruction."""
    mark = digest(text)[:6]
    return f"[{name} {mark}]\n{text}\n[end {mark}]"


def check_unclear(value: str, key: str) -> None:
    """Raise UserError for an unknown value of the setting."""
    if value not in UNCLEAR:
        raise UserError(
            f"{key}={value}: expected {' or '.join(UNCLEAR)}: what the defence does if the model's reply is neither "
            "yes nor no"
        )
