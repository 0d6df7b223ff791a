"""Make foreign texts safe in a judge's prompt: fences, no special tokens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from align.answering.thoughts import COMMON, mark_pattern

SPECIAL = re.compile(
    r"<\|[^<>|\s]{1,60}\|>|</?s>|<</?SYS>>|\[/?INST\]|<(?:start|end)_of_turn>|<image>|<pad>|<unk>",
    re.I,
)
"""Marks of turns and images in chat templates.

A tokenizer reads them in any text as special tokens.
"""
MARKS = mark_pattern([mark for pair in COMMON for mark in pair])
"""Marks of thoughts, which a judge may repeat in its own thoughts."""
FENCED = re.compile(r"```(?:[ \t]*(?:json|jsonc|text|txt|plaintext)\b)?(.*)```", re.DOTALL | re.IGNORECASE)
"""A code fence. Other words behind the fence are not skipped: they may be a verdict."""


def plain(text: str) -> str:
    """Put a space inside everything that looks like a special token, so that it is read as text."""
    # Inside the name: a mark with white space around its name is still a mark.
    text = MARKS.sub(lambda found: re.sub(r"(\w)", r"\1 ", found.group(), count=1), text)
    return SPECIAL.sub(lambda found: f"{found.group()[0]} {found.group()[1:]}", text)


def fenced(name: str, text: str) -> str:
    """The text between two marked lines with its own hash, which it cannot contain.

    Not truncated.
    """
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"[{name} {mark}]\n{plain(text)}\n[end of {name} {mark}]"


def unfenced(reply: str) -> str:
    """A judge's reply without a code fence around all of it."""
    found = FENCED.fullmatch(reply.strip())
    return (found[1] if found and "```" not in found[1] else reply).strip()


def filled(template: str, values: Mapping[str, str]) -> str:
    """Replace every `{name}` in a template at once; placeholders inside values are not replaced."""
    if not values:
        return template
    pattern = "|".join(re.escape(f"{{{name}}}") for name in values)
    return re.sub(pattern, lambda found: values[found.group()[1:-1]], template)
