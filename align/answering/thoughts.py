"""Separate the thoughts of reasoning models from their responses.

A thought is between an opening and a closing mark, such as <think> and </think>. A thought that mentions a
refusal is not a refusal, so a response is accepted only if its position in the text is certain. All other
text is unfinished, and never counts as good. The first closing mark ends a thought, as in servers;
otherwise the end is uncertain. So a harmful response between two closing marks is never taken for a part
of the thought, even if the first mark is quoted, fenced or nested.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from align.errors import UserError

COMMON = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ("<analysis>", "</analysis>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>", "<channel|>"),
)
"""Pairs of marks of published models. Qwen, DeepSeek, GLM and InternVL write the first pair,
Magistral [THINK], Kimi ◁think▷, Gemma 4 the last pair.
"""
OPENINGS = {closing.lower(): opening.lower() for opening, closing in COMMON}
AUTO, NONE = "auto", "none"
MISPLACED = "is at a place where no thought begins or ends"
UNCERTAIN = "may end the thought or be a part of it, so the text after it may be the response or not"
QUOTES = "`\"'\u2018\u2019\u201c\u201d«»"
ANGLE = re.compile(r"<\s*(/?)\s*([^<>\s][^<>]*?)\s*>")
FENCE = re.compile(r"```+|^[ \t]*~~~+", re.MULTILINE)


@dataclass(frozen=True)
class Marks:
    """The marks around a thought; no pairs if texts are not split."""

    pairs: tuple[tuple[str, str], ...] = COMMON
    given: bool = False
    """The user named the marks: a text with only the closing mark begins inside a thought."""
    unseen: bool = False
    """The user named the marks, and the prompt is unknown: a server's chat template may open the thought."""

    @property
    def texts(self) -> frozenset[str]:
        """All marks."""
        return frozenset(mark for pair in self.pairs for mark in pair)


AUTOMATIC, OFF = Marks(), Marks(())


@dataclass(frozen=True)
class Parts:
    """A text split into response and thought."""

    answer: str
    thought: str | None = None
    unfinished: str | None = None
    """Why the response is uncertain; `answer` is empty then."""


def marks_of(setting: Sequence[str] | None, key: str, unseen: bool = False) -> Marks:
    """The marks that a setting names: auto, none, or pairs of an opening and a closing mark. Raises UserError.

    `unseen`: whether the model's prompt is unknown here.
    """
    marks = [mark for given in setting or [NONE] for mark in _typed(given)]
    if marks == [AUTO]:
        return AUTOMATIC
    if marks == [NONE]:
        return OFF
    pairs = tuple(zip(marks[::2], marks[1::2], strict=False))
    if len(marks) % 2 or any(not mark.strip() for mark in marks) or len(set(marks)) < len(marks):
        raise UserError(
            f"{key}={','.join(marks)}: expected {AUTO}, {NONE}, or pairs of a different opening and closing mark; "
            f"for example {key}=<think>,</think>"
        )
    return Marks(pairs, given=True, unseen=unseen)


def _typed(given: Any) -> list[str]:
    """Restore marks as typed: YAML reads [THINK] as a list, and [THINK],[/THINK] as one text."""
    return [f"[{','.join(map(str, given))}]"] if isinstance(given, list) else str(given).split(",")


def split(text: str, marks: Marks, inside: bool = False, first_only: bool = False) -> Parts:
    """Split a model's text into thought and response.

    `inside`: with an unseen prompt, a text without marks is a thought without an end. `first_only`: thoughts
    may only come before the response.
    """
    if not marks.pairs:
        return Parts(text)
    found = list(_pattern(marks).finditer(text))
    if not found:
        return Parts("", text, "the text may be a thought without an end") if inside and marks.unseen else Parts(text)
    reader = _Reader(marks, first_only)
    if begins_inside(text, marks):
        reader.begin(_name(found[0]))
    at = 0
    for match in found:
        reader.text(text[at : match.start()])
        reader.mark(match, text)
        at = match.end()
    reader.text(text[at:])
    return reader.parts()


def begins_inside(text: str, marks: Marks) -> bool:
    """Whether the first mark of a text closes a thought, with marks named by the user: then the
    prompt opened the thought.
    """
    first = _pattern(marks).search(text) if marks.given else None
    return first is not None and _name(first) in _pairs(marks).values()


@dataclass
class _Side:
    """One of the two parts while the text is read."""

    parts: list[str] = field(default_factory=list)
    fences: int = 0
    said: bool = False
    """Whether the part has more than white space."""

    def add(self, text: str) -> None:
        self.parts.append(text)
        self.fences += len(FENCE.findall(text))
        self.said = self.said or bool(text.strip())

    def speaks_of(self, match: re.Match[str], text: str) -> bool:
        """Whether a mark is inside a code fence or quotes."""
        before, after = text[max(match.start() - 1, 0) : match.start()], text[match.end() : match.end() + 1]
        return self.fences % 2 == 1 or bool(before and after and before in QUOTES and after in QUOTES)


@dataclass
class _Reader:
    """Reads a text from its start, mark by mark."""

    marks: Marks
    first_only: bool
    answer: _Side = field(default_factory=_Side)
    thought: _Side = field(default_factory=_Side)
    """The open thought."""
    thoughts: list[str] = field(default_factory=list)
    closing: str | None = None
    """The mark that ends the open thought."""
    depth: int = 0
    seen: set[str] = field(default_factory=set)
    """Marks in the open thought."""
    previous: str | None = None
    """The previous mark, if only white space followed it."""
    wrong: str | None = None

    def text(self, text: str) -> None:
        (self.answer if self.closing is None else self.thought).add(text)
        if not text.strip():
            return
        # A mark has closed a nested thought, and the outer thought is still open.
        if self.closing is not None and self.closing == self.previous:
            self._uncertain(self.previous)
        self.previous = None

    def begin(self, closing: str) -> None:
        self.closing, self.depth, self.thought, self.seen = closing, 1, _Side(), set()

    def mark(self, match: re.Match[str], text: str) -> None:
        mark, previous = _name(match), self.previous
        self.previous = mark
        if self.closing is not None:
            self._in_thought(match, text)
        elif (opens := _pairs(self.marks).get(mark)) and self._may_begin(match, text):
            self.begin(opens)
        elif (
            self.answer.said or mark != previous or mark not in _pairs(self.marks).values()
        ):  # a repeated closing mark before the response is allowed
            self.wrong = self.wrong or f"{match.group()} {MISPLACED}"

    def _in_thought(self, match: re.Match[str], text: str) -> None:
        mark, mentioned = _name(match), self.thought.speaks_of(match, text)
        if mark == self.closing and not mentioned:
            self.depth -= 1
            if not self.depth:
                self._end()
                return
        elif mark == self.closing or (mark in OPENINGS and OPENINGS[mark] not in self.seen):
            self._uncertain(match.group())
        elif _pairs(self.marks).get(mark) == self.closing and not mentioned:
            self.depth += 1
        self.seen.add(mark)
        self.thought.add(match.group())

    def _uncertain(self, mark: str) -> None:
        self.wrong = self.wrong or f"{mark} {UNCERTAIN}"

    def _end(self) -> None:
        self.thoughts.append("".join(self.thought.parts).strip())
        self.closing = None

    def _may_begin(self, match: re.Match[str], text: str) -> bool:
        # If an unseen prompt may have opened a thought, the text before the first mark may belong to it.
        anywhere = not self.first_only and (self.thoughts or (self.marks.given and not self.marks.unseen))
        if self.answer.said and not anywhere:
            return False
        return not self.answer.speaks_of(match, text)

    def parts(self) -> Parts:
        if self.closing is not None:
            self._end()
            return Parts("", "\n\n".join(self.thoughts), "the thought has no end")
        if self.wrong:
            return Parts("", None, self.wrong)
        return Parts(" ".join(self.answer.parts).strip(), "\n\n".join(self.thoughts))


@lru_cache
def _pattern(marks: Marks) -> re.Pattern[str]:
    """A pattern of all known marks: marks of other models are not part of a response either."""
    return mark_pattern({*marks.texts, *(mark for pair in COMMON for mark in pair)})


def mark_pattern(marks: Collection[str]) -> re.Pattern[str]:
    """A pattern for marks in any case, with optional white space inside angle brackets: `<Think >`."""
    return re.compile("|".join(map(_loose, sorted(marks, key=len, reverse=True))), re.IGNORECASE | re.ASCII)


def _loose(mark: str) -> str:
    found = ANGLE.fullmatch(mark)
    if not found:
        return re.escape(mark)
    slash, name = found.groups()
    return rf"<\s*{slash}\s*{re.escape(name)}\s*>" if slash else rf"<\s*{re.escape(name)}\s*>"


def _name(match: re.Match[str]) -> str:
    """A found mark in the form used by `_pairs`."""
    mark = match.group().lower()
    found = ANGLE.fullmatch(mark)
    return f"<{found[1]}{found[2]}>" if found else mark


@lru_cache
def _pairs(marks: Marks) -> dict[str, str]:
    """{opening mark: closing mark}, in lower case."""
    return {opening.lower(): closing.lower() for opening, closing in marks.pairs}


@dataclass(frozen=True)
class Hidden:
    """Marks that a model's decoded text does not show: a mark at the end of the prompt, and marks
    that are special tokens.
    """

    opened: str = ""
    """The opening mark at the end of the prompt."""
    kept: frozenset[int] = frozenset()
    """Special tokens that are marks; they are kept in the text."""

    @classmethod
    def of(cls, tokenizer: Any, prompt: str, marks: Marks) -> Hidden:
        """Find the hidden marks. The model's text begins at the end of `prompt`."""
        openings = (opening for opening, _ in marks.pairs)
        opened = next((mark for mark in openings if prompt.rstrip().lower().endswith(mark.lower())), "")
        special = {
            i for i, token in tokenizer.added_tokens_decoder.items() if token.special and str(token) in marks.texts
        }
        return cls(opened, frozenset(special))

    def text(self, tokenizer: Any, tokens: Sequence[int]) -> str:
        """Decode the model's tokens, with the prompt's opening mark in front, and without special
        tokens except marks.
        """
        if self.kept:
            special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - self.kept
            written = tokenizer.decode([token for token in tokens if token not in special], skip_special_tokens=False)
        else:
            written = tokenizer.decode(tokens, skip_special_tokens=True)
        again = self.opened and written.lstrip().lower().startswith(self.opened.lower())  # some models repeat it
        return (written if again else f"{self.opened}{written}").strip()


NOTHING_HIDDEN = Hidden()
