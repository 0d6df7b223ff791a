"""What a command may ask of an address: calls, tokens and money, counted and bounded.

A limit is one command's: whoever asks the same model by the same settings, over sets, points of a curve and arms, shares its count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from align.answering.conversation import Request
from align.settings import Address

CHARACTERS_PER_TOKEN = 3.0
TOKENS_PER_IMAGE = 1500
"""For estimates before the server has counted: rather too many tokens than too few. Of other letters than ASCII each is a token."""
ROOM = ("max_tokens", "max_completion_tokens")
"""What servers call the bound of a reply."""
Usage = tuple[int | None, int | None]
"""(input, output) tokens, as the server counts them; None where it does not."""
MILLION = 1e6


class Spent(Exception):
    """The next request could pass a limit."""


class Budget:
    """Counts requests as they are sent and tokens as they come back."""

    def __init__(self, settings: Address, section: str):
        self._settings, self._section = settings, section
        self.calls = self.prompt_tokens = self.new_tokens = 0
        self._reserved = self._unreported = 0.0
        self._more = 1.0
        """By what the server has counted: how many times as many tokens a request may have as are estimated."""

    @property
    def priced(self) -> bool:
        """Whether tokens can be told in money."""
        return self._settings.price_in is not None and self._settings.price_out is not None

    def cost(self, prompt_tokens: float, new_tokens: float) -> float:
        """US dollars; only where `priced`."""
        assert self._settings.price_in is not None
        assert self._settings.price_out is not None
        return (prompt_tokens * self._settings.price_in + new_tokens * self._settings.price_out) / MILLION

    def reserve(self, request: Request) -> float:
        """Before a request is sent: set its greatest cost aside, and return it. Raises Spent where a limit could be passed."""
        limit = self._settings.max_calls
        if limit is not None and self.calls >= limit:
            raise Spent(f"{self._section}.max_calls={limit}: so many requests were sent")
        tokens = estimated_tokens(request) * self._more
        greatest = self.cost(tokens, room(self._settings, request)) if self.priced else 0.0
        most = self._settings.max_cost
        if most is not None:
            spent = self.spent()
            if spent + self._reserved + greatest > most:
                raise Spent(
                    f"{self._section}.max_cost={most}: {spent:.4f} US dollars are spent, and the next request may cost {greatest:.4f}"
                )
        self.calls += 1
        self._reserved += greatest
        return greatest

    def settle(self, reserved: float, request: Request, usage: Usage) -> None:
        """After it: what the server says that it took. Where it does not say, all that was set aside counts as spent."""
        self._reserved -= reserved
        read, written = (count or 0 for count in usage)
        self.prompt_tokens += read
        self.new_tokens += written
        self._more = max(self._more, read / max(estimated_tokens(request), 1))
        if None in usage and self.priced:
            self._unreported += max(reserved - self.cost(read, written), 0.0)

    def spent(self) -> float:
        """US dollars so far; only where `priced`."""
        return self.cost(self.prompt_tokens, self.new_tokens) + self._unreported

    def said(self) -> str:
        """So far, in a few words."""
        if not self.calls:
            return ""
        words = f"{self.calls:,} calls, {self.prompt_tokens:,} + {self.new_tokens:,} tokens"
        if not self.priced:
            return words
        unsaid = (
            f" (at most {self._unreported:.2f} of it for replies that were not counted)" if self._unreported else ""
        )
        return f"{words}, {self.spent():.2f} USD{unsaid}"

    def forecast(self, requests: Sequence[Request]) -> str:
        """What requests will take at most, in a few words, before the first is sent."""
        tokens = sum(map(estimated_tokens, requests)), sum(room(self._settings, one) for one in requests)
        words = f"about {tokens[0]:,} input tokens, at most {tokens[1]:,} output tokens"
        if self.priced:
            return f"{words}: at most about {self.cost(*tokens):.2f} USD"
        key = self._section
        return f"{words}; {key}.price_in= and {key}.price_out= (US dollars for a million tokens) would tell the cost"


_BUDGETS: dict[tuple[Any, ...], Budget] = {}


def budget_of(settings: Address, section: str) -> Budget:
    """The one that everybody shares who asks this model by these settings, prices and limits in this command."""
    key = (
        section,
        *(getattr(settings, name) for name in ("base_url", "model", "price_in", "price_out", "max_calls", "max_cost")),
    )
    return _BUDGETS.setdefault(key, Budget(settings, section))


def begin_command() -> None:
    """Nothing is spent yet."""
    _BUDGETS.clear()


def room(settings: Address, request: Request) -> int:
    """The most tokens that may come out of a request: what is sent of `extra` goes over what is ours."""
    given = [settings.extra.get(name) for name in ROOM]
    return max([value for value in given if isinstance(value, int)], default=request.max_new_tokens)


def estimated_tokens(request: Request) -> int:
    """Input tokens of a request, rather too many: a server alone can count them."""
    texts = "".join(turn.text for turn in request.turns)
    other = sum(not letter.isascii() for letter in texts)
    tokens = (len(texts) - other) / CHARACTERS_PER_TOKEN + other
    return math.ceil(tokens) + TOKENS_PER_IMAGE * sum(len(turn.images) for turn in request.turns)
