"""A circuit breaker: when to stop sending requests to a failing server, and which setting may help."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from align.answering.conversation import Failure, Request

NAMES = re.compile(r"\b(?=\w*\d)[\w-]{8,}\b")
"""Request ids in error messages of servers; they differ between requests with the same reason."""
OF_ONE = re.compile(
    r"code: 413|context|length|too (long|large|big|many)|exceed|(invalid|decode|process).{0,40}image", re.IGNORECASE
)
"""Errors that concern one request, even if many requests have them: the next request may be shorter."""
OF_CHAT = (
    (
        r"context length|too long|max_model_len|input tokens",
        "give a lower {0}.max_new_tokens=, or serve the model with a longer context",
    ),
    (
        r"max_tokens.*(not supported|unsupported|max_completion_tokens)|(unsupported|unknown|unrecognized).*max_tokens",
        "give {0}.extra.max_tokens=null {0}.extra.max_completion_tokens={1}",
    ),
    (r"temperature", "give {0}.extra.temperature=null, which removes this parameter"),
    (r"response_format|json_schema|guided|grammar", "give {0}.structured=false, which does not send a JSON schema"),
)
OF_EVERY_SERVER = (
    (r"\b40[13]\b|api.?key", "{0}.api_key_env= is the NAME of the environment variable with the key"),
    (r"\b404\b|does not exist", "check {0}.model= and {0}.base_url=, which ends in /v1 for most servers"),
    (r"\b429\b", "give a lower {0}.concurrency= or a higher {0}.retries="),
    (r"no answer in", "give a higher {0}.timeout= or a lower {0}.concurrency="),
    (r"connection", "check that the server of {0}.base_url= runs"),
)
"""(pattern of an error message, what to do, with the section of settings and max_new_tokens); the
first match is used.
"""
Advice = Sequence[tuple[str, str]]


def advice(detail: str, section: str, request: Request, own: Advice = OF_CHAT) -> str:
    """What the user can do about a failed request; empty if unknown. `own` is the advice for this kind of request."""
    fitting = (text for said, text in (*own, *OF_EVERY_SERVER) if re.search(said, detail, re.IGNORECASE | re.DOTALL))
    found = next(fitting, "")
    if request.schema is None and ".structured" in found:
        return ""
    return found.format(section, request.max_new_tokens)


class Breaker:
    """Counts consecutive failures.

    A rejected request normally does not count. If the server rejects every request with the same message,
    the message does not concern a single request, and no request has succeeded, then a setting is wrong
    and rejections count.
    """

    def __init__(self, give_up: int) -> None:
        """`give_up`: the number of consecutive failures after which the server counts as failing."""
        self._give_up = give_up
        self._failures = self._alike = 0
        self._answered = False
        self._first: Failure | None = None
        """The first of the counted failures."""

    @property
    def open(self) -> bool:
        """Whether no more requests are sent."""
        return max(self._failures, self._alike) >= self._give_up

    def note(self, found: object) -> None:
        """Count one result: a failure, or anything else, which is a success."""
        if self.open:  # results of requests that were already sent
            return
        if not isinstance(found, Failure):
            self._failures, self._answered, self._first = 0, True, None
        elif found.reason in ("timeout", "transport"):
            self._failures, self._alike = self._failures + 1, 0
            self._first = found if self._failures == 1 else self._first
        elif found.reason == "declined":
            self._failures = 0
            self._note_declined(found)

    def _note_declined(self, found: Failure) -> None:
        if found.final or self._answered or OF_ONE.search(found.detail):
            self._alike = 0
            return
        same = self._first is not None and _reason(self._first) == _reason(found)
        self._alike = self._alike + 1 if same else 1
        self._first = self._first if same else found

    def failure(self, request_id: str) -> Failure:
        """The failure of a request that is not sent, with the first failure's reason."""
        assert self._first is not None
        detail = f"not sent: {self._give_up} requests before it failed, first {self._first.id}: {self._first.detail}"
        return replace(self._first, id=request_id, reason="transport", detail=detail, asked=False)


def _reason(failure: Failure) -> str:
    return NAMES.sub("", failure.detail)
