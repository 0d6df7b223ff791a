"""Budgets of endpoints: calls, tokens and money, counted and limited.

A limit applies to one command: all requests to the same model with the same settings share its count, over
benchmarks, curve points and arms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from align.answering.conversation import Request
from align.settings import EndpointSettings

CHARACTERS_PER_TOKEN = 3.0
TOKENS_PER_IMAGE = 1500
"""Estimates for the time before the server has counted tokens; high on purpose. A non-ASCII
character counts as one token.
"""
ROOM = ("max_tokens", "max_completion_tokens")
"""Parameters of servers that limit the length of a reply."""
Usage = tuple[int | None, int | None]
"""(input, output) tokens, as the server counts them; None if it does not report them."""
MILLION = 1e6


class Spent(Exception):
    """The next request could exceed a limit."""


class Budget:
    """Counts requests as they are sent and tokens as they come back."""

    def __init__(self, settings: EndpointSettings, section: str):
        self._settings, self._section = settings, section
        self.calls = self.prompt_tokens = self.new_tokens = 0
        self._reserved = self._unreported = 0.0
        self._more = 1.0
        """The largest ratio of counted to estimated input tokens so far."""

    @property
    def priced(self) -> bool:
        """Whether both prices are known."""
        return self._settings.price_in is not None and self._settings.price_out is not None

    def cost(self, prompt_tokens: float, new_tokens: float) -> float:
        """Cost in US dollars; only if `priced`."""
        assert self._settings.price_in is not None
        assert self._settings.price_out is not None
        return (prompt_tokens * self._settings.price_in + new_tokens * self._settings.price_out) / MILLION

    def reserve(self, request: Request) -> float:
        """Reserve the maximum cost of a request before it is sent, and return it. Raises Spent if a
        limit could be exceeded.
        """
        limit = self._settings.max_calls
        if limit is not None and self.calls >= limit:
            raise Spent(f"{self._section}.max_calls={limit}: this number of requests has been sent")
        tokens = estimated_tokens(request) * self._more
        greatest = self.cost(tokens, room(self._settings, request)) if self.priced else 0.0
        most = self._settings.max_cost
        if most is not None:
            spent = self.spent()
            if spent + self._reserved + greatest > most:
                raise Spent(
                    f"{self._section}.max_cost={most}: {spent:.4f} US dollars are spent, and the next request may cost "
                    f"{greatest:.4f}"
                )
        self.calls += 1
        self._reserved += greatest
        return greatest

    def settle(self, reserved: float, request: Request, usage: Usage) -> None:
        """Replace a reservation with the usage that the server reports; without a report, the whole
        reservation is spent.
        """
        self._reserved -= reserved
        read, written = (count or 0 for count in usage)
        self.prompt_tokens += read
        self.new_tokens += written
        self._more = max(self._more, read / max(estimated_tokens(request), 1))
        if None in usage and self.priced:
            self._unreported += max(reserved - self.cost(read, written), 0.0)

    def spent(self) -> float:
        """US dollars so far; only if `priced`."""
        return self.cost(self.prompt_tokens, self.new_tokens) + self._unreported

    def said(self) -> str:
        """Calls, tokens and cost so far, as a short text."""
        if not self.calls:
            return ""
        words = f"{self.calls:,} calls, {self.prompt_tokens:,} + {self.new_tokens:,} tokens"
        if not self.priced:
            return words
        unsaid = (
            f" (of this, at most {self._unreported:.2f} for replies without a token count)" if self._unreported else ""
        )
        return f"{words}, {self.spent():.2f} USD{unsaid}"

    def forecast(self, requests: Sequence[Request]) -> str:
        """The maximum usage of requests, as a short text, before the first is sent."""
        tokens = sum(map(estimated_tokens, requests)), sum(room(self._settings, one) for one in requests)
        words = f"about {tokens[0]:,} input tokens, at most {tokens[1]:,} output tokens"
        if self.priced:
            return f"{words}: at most about {self.cost(*tokens):.2f} USD"
        key = self._section
        return f"{words}; to see the cost, give {key}.price_in= and {key}.price_out= (US dollars per million tokens)"


_BUDGETS: dict[tuple[Any, ...], Budget] = {}


def budget_of(settings: EndpointSettings, section: str) -> Budget:
    """The budget that all requests of this command to this model with these settings, prices and limits share."""
    key = (
        section,
        *(getattr(settings, name) for name in ("base_url", "model", "price_in", "price_out", "max_calls", "max_cost")),
    )
    return _BUDGETS.setdefault(key, Budget(settings, section))


def begin_command() -> None:
    """Reset all budgets."""
    _BUDGETS.clear()


def room(settings: EndpointSettings, request: Request) -> int:
    """The maximum output tokens of a request; `extra` overrides max_new_tokens."""
    given = [settings.extra.get(name) for name in ROOM]
    return max([value for value in given if isinstance(value, int)], default=request.max_new_tokens)


def estimated_tokens(request: Request) -> int:
    """A high estimate of a request's input tokens; only the server can count them."""
    texts = "".join(turn.text for turn in request.turns)
    other = sum(not letter.isascii() for letter in texts)
    tokens = (len(texts) - other) / CHARACTERS_PER_TOKEN + other
    return math.ceil(tokens) + TOKENS_PER_IMAGE * sum(len(turn.images) for turn in request.turns)
