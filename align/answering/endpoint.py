"""Responses of a model behind an OpenAI-compatible endpoint, so that tables can include closed models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from align.answering.address import check_address
from align.answering.answer import Answer, Unanswered, check_sampling, how
from align.answering.calls import call_of
from align.answering.chat_server import Server
from align.answering.conversation import Failure, Request, Turn
from align.answering.prompt_counts import PromptCounter, PromptCounts
from align.answering.thinking import switched_request, thinking_of
from align.answering.thoughts import marks_of
from align.errors import UserError
from align.rows import Row
from align.settings import Answering

SECTION = "generation"


def check_settings(settings: Answering) -> None:
    """Raise UserError for inconsistent generation settings."""
    for key in ("max_new_tokens", "batch_size"):
        if getattr(settings, key) <= 0:
            raise UserError(f"{SECTION}.{key}={getattr(settings, key)}: expected more than 0")
    marks_of(settings.thought_marks, f"{SECTION}.thought_marks")
    check_sampling(settings)
    thinking = thinking_of(settings)
    if settings.base_url is not None:
        switched_request(settings.extra, thinking)
    check_address(settings, SECTION)


class Endpoint:
    """A model behind an endpoint. Nothing is sent before the first request.

    Its identity is its name, not its URL: stored responses remain valid if the same model moves to another
    port or node.
    """

    def __init__(self, settings: Answering):
        check_settings(settings)
        self._settings = replace(settings, extra=switched_request(settings.extra, thinking_of(settings)))
        self._server: Server | None = None
        self._counter = PromptCounter(str(settings.model))
        self.name = self.base = str(settings.model)
        self.place = f" behind {settings.base_url}"
        self.marks = marks_of(settings.thought_marks, f"{SECTION}.thought_marks", unseen=True)
        self.identity: dict[str, Any] = {"model": settings.model}
        if settings.extra:
            self.identity["extra"] = settings.extra

    def prompt(self, row: Row) -> str:
        """The text that is sent for a row; the server applies the model's template."""
        turns = [f"{turn.role}\n{turn.text}\n{list(turn.places)}\n" for turn in row.history]
        return "".join([*turns, row.prompt, *map(str, row.places)])

    def answers(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        """One result per row, in the order of arrival. Raises UserError if a limit is reached."""
        self._server = self._server or Server(self._settings, SECTION, self._sampling())
        asked, of = (self._request(row) for row in rows), {row.id: row for row in rows}
        for found in self._server.replies(asked):
            if isinstance(found, Failure):
                declined = found.reason == "declined"
                yield Unanswered(found.id, found.detail, declined, found.final, found.asked, found.help)
            else:
                self._counter.add(of[found.id], found)
                told = found.new_tokens, found.seconds, found.thought, found.prompt_tokens
                yield Answer(found.id, found.text, found.finish_reason, *told)

    @property
    def agreement(self) -> PromptCounts | None:
        """Prompt tokens of the server, compared with those of the model here, if its files are here."""
        return self._counter.found

    def usage(self) -> str:
        """Calls, tokens and money so far."""
        return self._server.usage() if self._server else ""

    def release(self) -> None:
        """Do nothing: no resources are held."""

    def _sampling(self) -> dict[str, Any]:
        """Sampling parameters under OpenAI's names; servers differ in how they use the seed."""
        return {key: value for key, value in how(self._settings).items() if key in ("temperature", "top_p", "seed")}

    def _request(self, row: Row) -> Request:
        images = iter(row.images)
        turns = [
            Turn(turn.role, turn.text, tuple(next(images) for _ in turn.places), turn.places) for turn in row.history
        ]
        turns.append(Turn("user", row.prompt, tuple(images), row.places))
        return Request(row.id, tuple(turns), self._settings.max_new_tokens, call=call_of(row.id))
