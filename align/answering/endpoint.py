"""Answers of a model behind an OpenAI-compatible address, so that closed models are rows too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from align.answering.answer import Answer, Unanswered, check_sampling, how
from align.answering.chat_server import Server, check_address
from align.answering.conversation import Failure, Request, Turn
from align.answering.thoughts import marks_of
from align.errors import UserError
from align.rows import Row
from align.settings import Answering

SECTION = "generation"


def check_settings(settings: Answering) -> None:
    """Raises UserError for settings of generation that do not go together."""
    for key in ("max_new_tokens", "batch_size"):
        if getattr(settings, key) <= 0:
            raise UserError(f"{SECTION}.{key}={getattr(settings, key)}: expected more than 0")
    marks_of(settings.thought_marks, f"{SECTION}.thought_marks")
    check_sampling(settings)
    check_address(settings, SECTION)


class Endpoint:
    """A model behind an address. Nothing is sent before it is asked something.

    It is known by its name alone: the same model on another port or node has given its answers already.
    """

    def __init__(self, settings: Answering):
        check_settings(settings)
        self._settings = settings
        self._server: Server | None = None
        self.name = self.base = str(settings.model)
        self.place = f" behind {settings.base_url}"
        self.marks = marks_of(settings.thought_marks, f"{SECTION}.thought_marks", unseen=True)
        self.identity: dict[str, Any] = {"model": settings.model}
        if settings.extra:
            self.identity["extra"] = settings.extra

    def prompt(self, row: Row) -> str:
        """What is sent of a row, but for its images; the server puts it into the model's template."""
        return row.prompt

    def answers(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        """Answers as they come, not in the order of the rows: one for each row. Raises UserError where a limit is reached."""
        self._server = self._server or Server(self._settings, SECTION, self._sampling())
        asked = (self._request(row) for row in rows)
        for found in self._server.replies(asked):
            if isinstance(found, Failure):
                declined = found.reason == "declined"
                yield Unanswered(found.id, found.detail, declined, found.final, found.asked, found.help)
            else:
                yield Answer(found.id, found.text, found.finish_reason, found.new_tokens, found.seconds, found.thought)

    def usage(self) -> str:
        """Calls, tokens and money so far."""
        return self._server.usage() if self._server else ""

    def release(self) -> None:
        """Nothing is held."""

    def _sampling(self) -> dict[str, Any]:
        """By OpenAI's names; what a server makes of a seed is its own affair."""
        return {key: value for key, value in how(self._settings).items() if key in ("temperature", "top_p", "seed")}

    def _request(self, row: Row) -> Request:
        return Request(row.id, (Turn("user", row.prompt, row.images),), self._settings.max_new_tokens)
