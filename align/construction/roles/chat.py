"""A role that a chat model has, behind an endpoint or loaded here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from align.answering.budget import Budget
from align.answering.conversation import ChatModel, Failure, Reply, Request, Turn
from align.construction.roles.role import Call
from align.evaluation.judges.prompts import PLACEHOLDER, Prompts, hash_of
from align.evaluation.judges.untrusted import fenced, filled, plain
from align.rows import ImageRef
from align.settings import EndpointSettings

FOREIGN = ("query", "description", "prompt", "element")
"""Values that a model wrote: they are put between marked lines, so that they are read as material."""
ROOM_FOR = {"description": 3000, "query": 1500, "prompt": 1500, "element": 1500}
"""Characters of a value in a forecast: most are shorter."""
ROOM_FOR_OTHERS = 60
NO_IMAGE = ImageRef(path="")


class ChatRole:
    """A chat model with the prompts of a role; the model is made at the first call."""

    def __init__(
        self,
        name: str,
        prompts: Prompts,
        identity: Mapping[str, Any],
        model: Callable[[], ChatModel],
        max_new_tokens: int,
        address: EndpointSettings | None,
    ):
        self.name, self.prompts, self.address = name, prompts, address
        self.identity = {**identity, "max_new_tokens": max_new_tokens, "prompts": hash_of(prompts)}
        self.max_new_tokens = max_new_tokens
        self._make = model
        self._model: ChatModel | None = None

    def request(self, call: Call) -> Request:
        """The request to the model: one turn of the user."""
        shown = self._direct(call)
        values = {key: shown(key, value) for key, value in call.values.items()}
        text = filled(self.prompts[call.prompt], values)
        return Request(call.id, (Turn("user", text, call.images),), self.max_new_tokens)

    def replies(self, calls: Sequence[Call]) -> Iterator[Reply | Failure]:
        """One reply or failure per call. Raises UserError if a limit of calls or cost is reached."""
        self._model = self._model or self._make()
        yield from self._model.replies(map(self.request, calls))

    def usage(self) -> str:
        """Calls, tokens and cost so far."""
        return self._model.usage() if self._model else ""

    def forecast(self, calls: int, images: int) -> str:
        """The maximum usage of a number of calls, before the values of the placeholders are known."""
        if self.address is None:
            return "loaded here"
        longest = max(map(_longest, self.prompts.values()), default=0)
        request = Request("", (Turn("user", "x" * longest, (NO_IMAGE,) * images),), self.max_new_tokens)
        return Budget(self.address, f"role.each.{self.name}").forecast([request] * calls)

    def release(self) -> None:
        """Free the model; it is made again at the next call."""
        model, self._model = self._model or (self._make() if self.address is None else None), None
        if model:
            model.release()

    def _direct(self, call: Call) -> Callable[[str, str], str]:
        """How values are shown. A prompt of nothing but the query asks it as a user would."""
        alone = self.prompts[call.prompt].strip() == "{query}"
        return lambda key, value: fenced(key, value) if key in FOREIGN and not alone else plain(value)


def _longest(template: str) -> int:
    """Characters of a filled template at most."""
    return len(template) + sum(ROOM_FOR.get(name, ROOM_FOR_OTHERS) for name in PLACEHOLDER.findall(template))
