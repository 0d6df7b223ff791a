"""What a model or a data set wrote is material for a judge, never an instruction: it is fenced in, and special tokens are words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from align.answering.thoughts import COMMON, mark_pattern

SPECIAL = re.compile(
    r"<\|[^<>|\s]{1,60}\|>|</?s>|<</?SYS>>|\[/?INST\]|<(?:start|end)_of_turn>|<image>|<pad>|<unk>",
    re.I,
)
"""How the chat templates of the field mark turns and images; a tokenizer reads them in a text as what they stand for."""
MARKS = mark_pattern([mark for pair in COMMON for mark in pair])
"""Of thoughts, which a judge may repeat in its own."""
FENCED = re.compile(r"```(?:[ \t]*(?:json|jsonc|text|txt|plaintext)\b)?(.*)```", re.DOTALL | re.IGNORECASE)
"""Of another word behind the fence it is not certain that it names a language: it may be a verdict."""


def plain(text: str) -> str:
    """The text with a space inside of whatever looks like a special token, so that it is read as characters."""
    # In the name: a mark with white space around its name is a mark still.
    text = MARKS.sub(lambda found: re.sub(r"(\w)", r"\1 ", found.group(), count=1), text)
    return SPECIAL.sub(lambda found: f"{found.group()[0]} {found.group()[1:]}", text)


def fenced(name: str, text: str) -> str:
    """The text between two lines that it cannot contain, since they carry its own hash. Nothing is cut."""
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"[{name} {mark}]\n{plain(text)}\n[end of {name} {mark}]"


def unfenced(reply: str) -> str:
    """What a judge wrote, without the code fence around the whole of it."""
    found = FENCED.fullmatch(reply.strip())
    return (found[1] if found and "```" not in found[1] else reply).strip()


def filled(template: str, values: Mapping[str, str]) -> str:
    """A template with `{name}` replaced by values, all at once: what a value holds is not looked at."""
    pattern = "|".join(re.escape(f"{{{name}}}") for name in values)
    return re.sub(pattern, lambda found: values[found.group()[1:-1]], template)
