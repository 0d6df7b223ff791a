"""Whether an answer is language at all: a fact about the answer, found without a judge."""

from __future__ import annotations

import re

MINIMUM_REPEATS = 4
"""An answer that is nothing but one span, this often or more, is no answer."""


def incoherent(response: str) -> str | None:
    """Why an answer is incoherent (empty, no words, one span repeated, not decodable), or None if it is language."""
    text = response.strip()
    if not text:
        return "empty"
    if text.count("\ufffd") * 10 > len(text):
        return "not decodable"
    if not re.search(r"[^\W\d_]{2}", text):
        return "no words"
    if _is_repetition(text.split()) or _is_repetition(list(re.sub(r"\s+", "", text))):
        return "one span repeated"
    return None


def _is_repetition(items: list[str]) -> bool:
    """Whether the items are one span, repeated to the end; the last repeat may be cut short."""
    return any(
        all(item == items[i % span] for i, item in enumerate(items))
        for span in range(1, len(items) // MINIMUM_REPEATS + 1)
    )
