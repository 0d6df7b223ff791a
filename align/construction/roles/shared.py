"""A model that is loaded here once for several roles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from align.answering.conversation import ChatModel, Failure, Reply, Request


class SharedModel:
    """Loaded at the first request, freed when no role needs it any more, and loaded again at another request."""

    def __init__(self, make: Callable[[], ChatModel]):
        self._make = make
        self._model: ChatModel | None = None
        self.wanted = 1
        """Number of roles that still need it."""

    def replies(self, requests: Iterable[Request]) -> Iterator[Reply | Failure]:
        """One reply or failure per request."""
        self._model = self._model or self._make()
        yield from self._model.replies(requests)

    def usage(self) -> str:
        """Return an empty text: local models have no cost."""
        return ""

    def release(self) -> None:
        """Free the model if this was the last role that needed it."""
        self.wanted -= 1
        if self.wanted <= 0 and self._model is not None:
            self._model.release()
            self._model = None
