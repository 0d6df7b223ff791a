"""Detect incoherent responses, which are not language at all, without a judge."""

from __future__ import annotations

import re
import unicodedata

MINIMUM_REPEATS = 4
"""A response of one span that repeats this often or more is incoherent."""
LONGEST_WORD = 24
"""Letters or digits. One word or number up to this length ("1111", "hahahaha") is coherent."""
LETTERS_OF_A_SIGN = 4
"""Letters for which a character counts in scripts without spaces, where words are short."""
WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Myanmar, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"  # kana, Chinese characters
)
BETWEEN_DIGITS = set(" \u00a0\u202f.,:'/-")
LIST_MARK = re.compile(r"(\d+)[.)]")


def incoherent(response: str) -> str | None:
    """Why a response is incoherent (empty, not decodable, no words, one span repeated), or None.

    A letter or a digit of any script is language. Punctuation alone is not, nor are numbers of a
    list without entries.
    """
    text = response.strip()
    if not text:
        return "empty"
    if text.count("\ufffd") * 10 > len(text):
        return "not decodable"
    if not any(character.isalnum() for character in text) or _is_empty_list(text):
        return "no words"
    return "one span repeated" if _repeats(text) else None


def _is_empty_list(text: str) -> bool:
    """Whether a text has only list numbers in order: 1. 2. and so on."""
    said = [part for part in text.split() if any(character.isalnum() for character in part)]
    marks = [LIST_MARK.fullmatch(part) for part in said]
    return len(said) > 1 and [mark and int(mark[1]) for mark in marks] == list(range(1, len(said) + 1))


def _repeats(text: str) -> bool:
    numbers: dict[str, int] = {}
    words = "".join(
        chr(numbers.setdefault(word, len(numbers)) % 0x110000) for word in text.split()
    )  # one character for each word
    return _is_repetition(words) or (not _is_one_word(text) and _is_repetition(re.sub(r"\s+", "", text)))


def _is_one_word(text: str) -> bool:
    """Whether a text is one number or one word of at most LONGEST_WORD."""
    if all(character.isnumeric() or character in BETWEEN_DIGITS for character in text):
        return len(text) <= LONGEST_WORD
    signs = len(WITHOUT_SPACES.findall(text))
    length = len(text) + (LETTERS_OF_A_SIGN - 1) * signs
    return length <= LONGEST_WORD and all(unicodedata.category(character)[0] in "LMN" for character in text)


def _is_repetition(text: str) -> bool:
    """Whether a text is one repeated span; the last repeat may be truncated. Linear time."""
    longest = len(text) // MINIMUM_REPEATS
    # If so, the text without its last quarter occurs again, shifted by the length of the span.
    span = text.find(text[: len(text) - longest], 1)
    return 0 < span <= longest and text.startswith(text[span:])
