"""A chat model behind an OpenAI-compatible endpoint: vLLM, SGLang, `transformers serve`, and hosted models.

Requests run concurrently up to a limit. Temporary errors (429, 5xx, a timeout, a lost connection) are
retried with doubling waits; a reply is never requested again. If the server fails for all requests, no
more requests are sent.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import re
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import replace
from typing import Any

from align.answering.breaker import Breaker, advice
from align.answering.budget import ROOM, Spent, Usage, budget_of
from align.answering.conversation import Failure, Reply, Request, Turn
from align.config.endpoints import check_values
from align.data.images import encode_png, load_image
from align.errors import UserError
from align.settings import EndpointSettings

GIVE_UP = 20
"""After this many consecutive failures, the server counts as failing, not the requests."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds between retries, unless the server gives a time."""
SHORTEST_KEY = 12
"""A shorter key is not a secret of a hosted service (e.g. "EMPTY"), and may be a word of a reply."""
MAY_PASS = (408, 409, 429)
REQUESTS_OWN_FAULT = (400, 413, 422)
"""Too long, filtered, or otherwise invalid: this concerns only the request itself."""
FILTERED = re.compile(r"content_filter|content_policy|safety|invalid_prompt", re.IGNORECASE)
"""Names of servers' own filters in error codes."""
THOUGHTS = ("reasoning_content", "reasoning")
"""Fields of a message with a thought: DeepSeek, SGLang, older vLLM; newer vLLM, Ollama, OpenRouter."""
UNKNOWN: Usage = (None, None)
GAVE_UP_WAITING = (408, 502, 504)
"""Statuses of proxies: the model may still have generated tokens."""


def check_address(settings: EndpointSettings, section: str) -> None:
    """Raise UserError for inconsistent settings, and for settings that contain an API key."""
    check_values(settings, section)
    if settings.base_url is None:
        given = [key for key in ("model", "api_key_env") if getattr(settings, key) is not None]
        if given:
            raise UserError(
                f"{section}.{given[0]} is given without {section}.base_url=, the URL of the endpoint; give both"
            )
        return
    if settings.model is None:
        raise UserError(
            f"{section}.base_url={settings.base_url}: give {section}.model= too, the model's name at the endpoint"
        )
    if settings.max_cost is not None and (settings.price_in is None or settings.price_out is None):
        raise UserError(
            f"{section}.max_cost={settings.max_cost}: give {section}.price_in= and {section}.price_out= too"
        )
    if settings.max_cost is not None and _unbounded(settings.extra):
        raise UserError(
            f"{section}.max_cost={settings.max_cost}: {section}.extra removes the limit of a reply's length, so its cost has no limit; "
            f"give {section}.extra.max_completion_tokens="
        )


def _unbounded(extra: dict[str, Any]) -> bool:
    return "max_tokens" in extra and not any(isinstance(extra.get(name), int) for name in ROOM)


def key_of(settings: EndpointSettings, section: str) -> str:
    """The key in the environment; empty if no variable is named. Raises UserError if the variable is not set."""
    name = settings.api_key_env
    if name is not None and not os.environ.get(name):
        raise UserError(
            f"{section}.api_key_env={name}: this environment variable does not exist or is empty; run `export` to set it"
        )
    return os.environ[name].strip() if name else ""


class Server:
    """A model behind an endpoint. Nothing is sent before the first request."""

    def __init__(self, settings: EndpointSettings, section: str, parameters: dict[str, Any] | None = None):
        """`section` is the name of the settings in errors; `parameters` are sent with every request, under OpenAI's names.

        Raises UserError if the key is not in the environment or the package openai is absent.
        """
        check_address(settings, section)
        self.settings, self.section = settings, section
        self.parameters = {"temperature": 0} | (parameters or {})
        self.budget = budget_of(settings, section)
        self._key = key_of(settings, section)
        _openai(section)

    def replies(self, requests: Iterable[Request]) -> Iterator[Reply | Failure]:
        """One reply or failure per request, in the order of arrival. Raises UserError if a limit of calls or money is reached."""
        with asyncio.Runner() as runner:  # Ctrl-C cancels requests in progress
            stream = self._stream(requests)
            try:
                while (found := runner.run(_next(stream))) is not None:
                    yield found
            finally:
                runner.run(stream.aclose())

    def usage(self) -> str:
        """Calls, tokens and money so far."""
        return self.budget.said()

    def release(self) -> None:
        """Do nothing: connections are closed after each call of `replies`."""

    def clean(self, text: str) -> str:
        """A text from the server without the key, which some servers repeat."""
        return text.replace(self._key, "(the key)") if len(self._key) >= SHORTEST_KEY else text

    async def _stream(self, requests: Iterable[Request]) -> AsyncGenerator[Reply | Failure, None]:
        source, waiting, breaker = iter(requests), set[asyncio.Task[Reply | Failure]](), Breaker(GIVE_UP)
        spent: Spent | None = None
        # Without an explicit key the client would send OPENAI_API_KEY to any URL.
        async with _openai(self.section).AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self.settings.base_url,
            timeout=self.settings.timeout,
            max_retries=0,  # retries are counted, so this class retries itself
        ) as client:
            try:
                while True:
                    while len(waiting) < self.settings.concurrency and spent is None and not breaker.open:
                        if (request := next(source, None)) is None:
                            break
                        waiting.add(asyncio.create_task(self._ask(client, request)))
                    if not waiting:
                        break
                    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        if isinstance(task.exception(), Spent):
                            spent = task.exception()  # type: ignore[assignment]
                            continue
                        found = task.result()
                        breaker.note(found)
                        yield found
            finally:
                for task in waiting:
                    task.cancel()
        if spent is not None:
            raise UserError(
                f"{spent}; received replies are stored. Raise the limit, and run the same command to continue"
            )
        for request in source:
            yield breaker.failure(request.id)

    async def _ask(self, client: Any, request: Request) -> Reply | Failure:
        try:
            messages = [await asyncio.to_thread(_message, turn, request.id) for turn in request.turns]
        except UserError as error:
            return Failure(request.id, "missing_image", str(error))
        parameters = self._parameters(request)
        for attempt in range(self.settings.retries + 1):
            reserved, usage = self.budget.reserve(request), UNKNOWN
            begun = time.monotonic()
            try:
                async with asyncio.timeout(
                    self.settings.timeout
                ):  # applies even if the server sends single bytes slowly
                    completion = await client.chat.completions.create(
                        model=self.settings.model, messages=messages, **parameters
                    )
                usage = _usage(completion)
                return self._reply(request.id, completion, usage, time.monotonic() - begun)
            except Exception as error:
                usage = (0, 0) if self._costs_nothing(error) else usage
                failure, wait = self._failure(request.id, error, attempt)
            finally:
                self.budget.settle(reserved, request, usage)
            if wait is None or attempt == self.settings.retries:
                break
            await asyncio.sleep(wait)
        return replace(failure, help=advice(failure.detail, self.section, request))

    def _parameters(self, request: Request) -> dict[str, Any]:
        ours = {**self.parameters, "max_tokens": request.max_new_tokens}
        if request.schema is not None:
            form = {"name": "verdict", "strict": True, "schema": request.schema}
            ours["response_format"] = {"type": "json_schema", "json_schema": form}
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
            return Failure(request_id, "transport", "the server's reply is not a chat completion")
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

    def _costs_nothing(self, error: Exception) -> bool:
        """Whether a request certainly used no tokens: it was not delivered, or was rejected. After a timeout this is unknown."""
        if isinstance(error, _openai(self.section).APIStatusError):
            return error.status_code not in GAVE_UP_WAITING
        # Compare names: the class is of httpx or httpx2, depending on the version of openai.
        return type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")

    def _failure(self, request_id: str, error: Exception, attempt: int) -> tuple[Failure, float | None]:
        """(Failure, seconds before a retry, or None if a retry would not help). Raises errors that are not failures."""
        openai = _openai(self.section)
        detail = self.clean(f"{type(error).__name__}: {error}")
        wait = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.75, 1.25)
        if isinstance(error, TimeoutError | openai.APITimeoutError):
            return Failure(request_id, "timeout", f"no answer in {self.settings.timeout:g} s"), wait
        if isinstance(error, openai.APIStatusError):
            if error.status_code in MAY_PASS or error.status_code >= 500:
                return Failure(request_id, "transport", detail), _asked_to_wait(error.response.headers, wait)
            filtered = FILTERED.search(str(error.code)) is not None  # some servers send numbers as codes
            declined = filtered or error.status_code in REQUESTS_OWN_FAULT
            return Failure(request_id, "declined" if declined else "transport", detail, final=filtered), None
        if isinstance(error, openai.APIConnectionError):
            return Failure(request_id, "transport", detail), wait
        if isinstance(error, openai.OpenAIError | ValueError):
            return Failure(request_id, "transport", f"the server's reply is not a chat completion ({detail})"), None
        raise error


def _usage(completion: Any) -> Usage:
    """The usage that the server reports, even if the reply is not usable."""
    usage = getattr(completion, "usage", None)
    counts = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    read, written = (count if isinstance(count, int) and count >= 0 else None for count in counts)
    return read, written


async def _next(stream: AsyncGenerator[Reply | Failure, None]) -> Reply | Failure | None:
    return await anext(stream, None)


def _asked_to_wait(headers: Any, otherwise: float) -> float:
    """The wait that the server asks for, in seconds, up to LONGEST_WAIT; else `otherwise`."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return min(max(float(headers[name]) * unit, 0.0), LONGEST_WAIT)
        except (KeyError, ValueError):  # absent, or a date
            continue
    return otherwise


def _message(turn: Turn, request_id: str) -> dict[str, Any]:
    """A message with images before the text, as in every family's template; plain text if there are no images."""
    if not turn.images:
        return {"role": turn.role, "content": turn.text}
    urls = [{"type": "image_url", "image_url": {"url": _data_url(image, request_id)}} for image in turn.images]
    return {"role": turn.role, "content": [*urls, {"type": "text", "text": turn.text}]}


def _data_url(image: Any, request_id: str) -> str:
    """The image as decoded for training: the file itself may have an EXIF orientation, or a format unknown to the server."""
    encoded = encode_png(load_image(image, f"row {request_id}")).bytes
    assert encoded is not None
    return f"data:image/png;base64,{base64.b64encode(encoded).decode()}"


def _openai(section: str) -> Any:
    try:
        import openai
    except ImportError as error:
        raise UserError(
            f"{section}.base_url needs the package openai, which is not installed; run: pip install 'vsil-align[openai]' ({error})"
        ) from error
    return openai
