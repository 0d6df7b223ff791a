"""End thoughts after a number of tokens (`generation.thinking=budget=<n>`), row by row, in batches.

When the budget of a response is spent, the closing mark of its thought is forced, token by token, and the model
continues with its answer. This is budget forcing as in s1 (Muennighoff et al. 2025, arXiv 2501.19393), and the thinking
budget of Qwen3 (arXiv 2505.09388, section 4.3) without its sentence before the mark: no words are added.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from align.answering.thinking import KEY, thinking_of
from align.answering.thoughts import Hidden, Marks, mark_pattern
from align.errors import UserError
from align.settings import Generation

WINDOW = 32
"""Tokens in which a mark is looked for: every mark has fewer characters, and a token has at least one."""


@dataclass(frozen=True)
class ThoughtBudget:
    """The limits of a response: `tokens` of thought, and then `max_new_tokens` of answer.

    The marks of the first thought count as neither; marks of later thoughts count as answer.
    """

    tokens: int
    max_new_tokens: int
    marks: Marks
    hidden: Hidden
    tokenizer: Any

    @classmethod
    def of(cls, generation: Generation, marks: Marks, hidden: Hidden, tokenizer: Any) -> ThoughtBudget | None:
        """The budget of a setting; None without one. Raises UserError if thoughts have no marks, or a mark no tokens."""
        thinking = thinking_of(generation)
        if thinking is None or thinking.budget is None:
            return None
        if not marks.pairs:
            raise UserError(
                f"{KEY}={thinking}: a budget needs the marks of thoughts, but generation.thought_marks=none; remove one "
                "of the two"
            )
        budget = cls(thinking.budget, generation.max_new_tokens, marks, hidden, tokenizer)
        for opening in [hidden.opened] if hidden.opened else []:
            budget.ids(budget.closing(opening))
        return budget

    @cached_property
    def room(self) -> int:
        """The most new tokens of a row: thought, answer, and one pair of marks."""
        lengths = [
            sum(len(self._encoded(mark)) for mark in pair) for pair in self.marks.pairs if all(map(self._written, pair))
        ]
        return self.tokens + self.max_new_tokens + max(lengths, default=0)

    @cached_property
    def openings(self) -> re.Pattern[str]:
        """A pattern of the marks that open a thought."""
        return mark_pattern([opening for opening, _ in self.marks.pairs])

    @cached_property
    def patterns(self) -> dict[str, re.Pattern[str]]:
        """{closing mark: its pattern}."""
        return {closing: mark_pattern([closing]) for _, closing in self.marks.pairs}

    @cached_property
    def _special(self) -> set[int]:
        return {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special} - self.hidden.kept

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens without special tokens except marks, as in stored responses."""
        return str(
            self.tokenizer.decode([one for one in tokens if one not in self._special], skip_special_tokens=False)
        )

    def closing(self, opening: str) -> str:
        """The closing mark for a mark as a model wrote it: in any case, with white space."""
        return next(end for mark, end in self.marks.pairs if mark_pattern([mark]).fullmatch(opening.strip()))

    def ids(self, closing: str) -> list[int]:
        """The tokens of a closing mark. Raises UserError if the tokenizer has none for it."""
        if not self._written(closing):
            raise UserError(
                f"{KEY}=budget={self.tokens}: the model's tokenizer has no tokens for the mark {closing}, so it cannot "
                f"end a thought; give other generation.thought_marks=, or remove {KEY}="
            )
        return self._encoded(closing)

    def _encoded(self, mark: str) -> list[int]:
        return list(self.tokenizer(mark, add_special_tokens=False).input_ids)

    def _written(self, mark: str) -> bool:
        ids = self._encoded(mark)
        return bool(ids) and mark_pattern([mark]).search(self.text(ids)) is not None

    def counted(self, rows: int) -> Counted:
        """Counts of a batch of rows before their first new token."""
        opened = self.closing(self.hidden.opened) if self.hidden.opened else None
        return Counted([Count(self, inside=opened) for _ in range(rows)])


@dataclass
class Count:
    """The tokens of one response so far. It depends on this response alone."""

    budget: ThoughtBudget
    inside: str | None = None
    """The closing mark of the open thought."""
    thoughts: int = 0
    """Thoughts that have ended."""
    thought: int = 0
    answer: int = 0
    length: int = 0
    cut: bool = False
    """Whether a closing mark was forced."""
    done: bool = False
    """Whether the answer has its maximum length."""
    _recent: list[int] = field(default_factory=list)
    """The last tokens since the last mark."""
    _forced: list[int] = field(default_factory=list)

    def next_token(self) -> int | None:
        """The token that must come next; None if the model chooses it."""
        if self.inside is not None and not self._forced and self.thought >= self.budget.tokens:
            ids = self.budget.ids(self.inside)
            # The model may be writing the mark already.
            there = next(n for n in range(len(ids) - 1, -1, -1) if self._recent[len(self._recent) - n :] == ids[:n])
            self._forced, self.cut = ids[there:], True
        return self._forced[0] if self._forced else None

    def add(self, token: int) -> None:
        """Count the next token of the response."""
        if self.done:
            return
        self._forced = self._forced[1:]
        self._recent = [*self._recent[1 - WINDOW :], token]
        self.length += 1
        if self.inside is None:
            self.answer += 1
            self._open()
        else:
            self.thought += 1
            self._close(self.inside)
        self.done = self.answer >= self.budget.max_new_tokens

    def _open(self) -> None:
        if found := self.budget.openings.search(self.budget.text(self._recent)):
            self.answer -= 0 if self.thoughts else self._tokens_of(self.budget.openings)
            self.inside, self._recent = self.budget.closing(found.group()), []

    def _close(self, closing: str) -> None:
        pattern = self.budget.patterns[closing]
        if pattern.search(self.budget.text(self._recent)):
            mark = self._tokens_of(pattern)
            self.thought -= mark
            self.answer += mark if self.thoughts else 0
            self.thoughts += 1
            self.inside, self._recent, self._forced = None, [], []

    def _tokens_of(self, pattern: re.Pattern[str]) -> int:
        """The number of last tokens that a mark, which has just been completed, has."""
        last = range(1, len(self._recent) + 1)
        return next(n for n in last if pattern.search(self.budget.text(self._recent[-n:])))


@dataclass
class Counted:
    """Counts of a batch, in the order of its rows."""

    rows: list[Count]

    @property
    def forcing(self) -> LogitsProcessor:
        """Forces the tokens that must come next; it comes after sampling."""
        return _Forcing(self.rows)

    @property
    def counting(self) -> StoppingCriteria:
        """Counts each new token, and stops a row whose answer has its maximum length."""
        return _Counting(self.rows)


class _Forcing(LogitsProcessor):
    def __init__(self, rows: Sequence[Count]):
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = [row.next_token() for row in self._rows]
        if all(token is None for token in forced):
            return scores
        scores = scores.clone()
        for i, token in enumerate(forced):
            if token is not None:
                scores[i] = -torch.inf
                scores[i, token] = 0.0
        return scores


class _Counting(StoppingCriteria):
    def __init__(self, rows: Sequence[Count]):
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
            row.add(token)
        return torch.tensor([row.done for row in self._rows], device=input_ids.device)
