"""A chat model behind an OpenAI-compatible endpoint: vLLM, SGLang, `transformers serve`, and hosted models."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Iterator
from typing import Any

from align.answering.breaker import advice
from align.answering.budget import Usage
from align.answering.conversation import Failure, Reply, Request, Turn
from align.answering.sending import Sender
from align.data.images import encode_png, load_image
from align.errors import UserError
from align.settings import EndpointSettings

THOUGHTS = ("reasoning_content", "reasoning")
"""Fields of a message with a thought: DeepSeek, SGLang, older vLLM; newer vLLM, Ollama, OpenRouter."""


class Server(Sender[Request, Reply]):
    """A model behind an endpoint. Nothing is sent before the first request."""

    expected = "a chat completion"

    def __init__(self, settings: EndpointSettings, section: str, parameters: dict[str, Any] | None = None):
        """`section` is the name of the settings in errors; `parameters` are sent with every
        request, under OpenAI's names.

        Raises UserError if the key is not in the environment or the package openai is absent.
        """
        super().__init__(settings, section)
        self.parameters = {"temperature": 0} | (parameters or {})

    def replies(self, requests: Iterable[Request]) -> Iterator[Reply | Failure]:
        """One reply or failure per request, in the order of arrival. Raises UserError if a limit of
        calls or money is reached.
        """
        yield from self.results(requests)

    def usage(self) -> str:
        """Calls, tokens and money so far."""
        return self.budget.said()

    def advice(self, detail: str, request: Request) -> str:
        """What the user can do about a failed request; empty if unknown."""
        return advice(detail, self.section, request)

    async def ask(self, client: Any, request: Request) -> Reply | Failure:
        """The reply to one request."""
        try:
            messages = [await asyncio.to_thread(_message, turn, request.id) for turn in request.turns]
        except UserError as error:
            return Failure(request.id, "missing_image", str(error))
        parameters = self._parameters(request)

        async def send() -> Any:
            return await client.chat.completions.create(model=self.settings.model, messages=messages, **parameters)

        return await self.tries(request, send, lambda *answer: self._reply(request.id, *answer))

    def _parameters(self, request: Request) -> dict[str, Any]:
        ours = {**self.parameters, "max_tokens": request.max_new_tokens}
        if request.schema is not None:
            form = {"name": "verdict", "strict": True, "schema": request.schema}
            ours["response_format"] = {"type": "json_schema", "json_schema": form}
        if "seed" in ours:
            ours["seed"] += request.call
        extra = self.settings.extra
        kept = {key: value for key, value in ours.items() if key not in extra}
        return kept | {"extra_body": {key: value for key, value in extra.items() if value is not None}}

    def _reply(self, request_id: str, completion: Any, usage: Usage, seconds: float) -> Reply | Failure:
        try:
            choice = completion.choices[0]
            reason, refusal = choice.finish_reason, getattr(choice.message, "refusal", None)
            text = self.clean((refusal or choice.message.content or "").strip())
            thought = self._thought(choice.message)
            text.encode()  # raises a ValueError for half a character, which could not be stored
        except (AttributeError, IndexError, TypeError, ValueError):
            return Failure(request_id, "transport", f"the server's reply is not {self.expected}")
        if reason == "content_filter":
            return Failure(
                request_id, "declined", "the server stopped the reply: finish_reason content_filter", final=True
            )
        if reason not in ("stop", "length"):
            return Failure(request_id, "transport", f"the server stopped the reply: finish_reason {reason}")
        return Reply(request_id, text, reason, seconds, usage[0], usage[1], bool(refusal), thought)

    def _thought(self, message: Any) -> str | None:
        """The thought, if the server returns it in a separate field."""
        given = (getattr(message, name, None) for name in THOUGHTS)
        thought = next((text.strip() for text in given if isinstance(text, str) and text.strip()), None)
        return thought and self.clean(thought).encode("utf-8", "replace").decode()


def _message(turn: Turn, request_id: str) -> dict[str, Any]:
    """A message with images before the text, as in every family's template, or where the text has them; plain text
    without images.
    """
    if not turn.images:
        return {"role": turn.role, "content": turn.text}
    urls = iter({"type": "image_url", "image_url": {"url": _data_url(image, request_id)}} for image in turn.images)
    return {"role": turn.role, "content": [next(urls) if part["type"] == "image" else part for part in turn.parts()]}


def _data_url(image: Any, request_id: str) -> str:
    """The image as decoded for training: the file itself may have an EXIF orientation, or a format
    unknown to the server.
    """
    encoded = encode_png(load_image(image, f"row {request_id}")).bytes
    assert encoded is not None
    return f"data:image/png;base64,{base64.b64encode(encoded).decode()}"
