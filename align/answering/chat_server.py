"""A chat model behind an OpenAI-compatible address: vLLM, SGLang, `transformers serve`, and hosted ones.

Requests run side by side up to a bound. What may pass (429, 5xx, a timeout, a lost connection) is tried again, with waits that
double; a reply never is. A server that fails for everybody is not asked for every row.
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
from align.settings import Address

GIVE_UP = 20
"""So many failures one after another are the server's, not the requests'."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds between tries, where the server does not say when to come again."""
SHORTEST_KEY = 12
"""What is shorter is no secret of a hosted service ("EMPTY", say), and may be a word of a reply."""
MAY_PASS = (408, 409, 429)
REQUESTS_OWN_FAULT = (400, 413, 422)
"""Too long, filtered, or otherwise not what the server takes: that says nothing of other requests."""
FILTERED = re.compile(r"content_filter|content_policy|safety|invalid_prompt", re.IGNORECASE)
"""What servers call their own filter in an error's code."""
THOUGHTS = ("reasoning_content", "reasoning")
"""Of a message: DeepSeek, SGLang and older vLLM have the first, newer vLLM, Ollama and OpenRouter the second."""
UNKNOWN: Usage = (None, None)
GAVE_UP_WAITING = (408, 502, 504)
"""Who says so stands between: the model may have worked all the same."""


def check_address(settings: Address, section: str) -> None:
    """Raises UserError for settings that do not go together, and where a key stands in them, which they are no place for."""
    check_values(settings, section)
    if settings.base_url is None:
        given = [key for key in ("model", "api_key_env") if getattr(settings, key) is not None]
        if given:
            raise UserError(f"{section}.{given[0]} is given without {section}.base_url, the address to ask")
        return
    if settings.model is None:
        raise UserError(f"{section}.base_url={settings.base_url}: give {section}.model=, the model's name there")
    if settings.max_cost is not None and (settings.price_in is None or settings.price_out is None):
        raise UserError(
            f"{section}.max_cost={settings.max_cost}: give {section}.price_in= and {section}.price_out= too"
        )
    if settings.max_cost is not None and _unbounded(settings.extra):
        raise UserError(
            f"{section}.max_cost={settings.max_cost}: {section}.extra leaves out the bound of a reply, and it could cost anything; "
            f"give {section}.extra.max_completion_tokens="
        )


def _unbounded(extra: dict[str, Any]) -> bool:
    return "max_tokens" in extra and not any(isinstance(extra.get(name), int) for name in ROOM)


def key_of(settings: Address, section: str) -> str:
    """The key that the environment holds; empty where none is asked for. Raises UserError where it is not there."""
    name = settings.api_key_env
    if name is not None and not os.environ.get(name):
        raise UserError(f"{section}.api_key_env={name}: there is no such environment variable, or it is empty")
    return os.environ[name].strip() if name else ""


class Server:
    """A model behind an address. Nothing is sent before it is asked something."""

    def __init__(self, settings: Address, section: str, parameters: dict[str, Any] | None = None):
        """`section` is what errors call the settings; `parameters` go with every request, by OpenAI's names.

        Raises UserError where the key is not in the environment or the package openai is absent.
        """
        check_address(settings, section)
        self.settings, self.section = settings, section
        self.parameters = {"temperature": 0} | (parameters or {})
        self.budget = budget_of(settings, section)
        self._key = key_of(settings, section)
        _openai(section)

    def replies(self, requests: Iterable[Request]) -> Iterator[Reply | Failure]:
        """One for each request, as they come. Raises UserError where a limit of calls or money is reached."""
        with asyncio.Runner() as runner:  # Ctrl-C cancels what is under way
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
        """Connections are closed after each round of requests; nothing else is held."""

    def clean(self, text: str) -> str:
        """A text that a server wrote, without the key, which a careless one repeats."""
        return text.replace(self._key, "(the key)") if len(self._key) >= SHORTEST_KEY else text

    async def _stream(self, requests: Iterable[Request]) -> AsyncGenerator[Reply | Failure, None]:
        source, waiting, breaker = iter(requests), set[asyncio.Task[Reply | Failure]](), Breaker(GIVE_UP)
        spent: Spent | None = None
        # Without a key of its own the client would take OPENAI_API_KEY, whatever the address.
        async with _openai(self.section).AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self.settings.base_url,
            timeout=self.settings.timeout,
            max_retries=0,  # tries are counted, so they are ours
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
            raise UserError(f"{spent}; what came is stored: raise the limit, and the same command goes on from there")
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
                async with asyncio.timeout(self.settings.timeout):  # also where a server sends a byte now and then
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
            text.encode()  # half a character could not be stored; its error is a ValueError
        except (AttributeError, IndexError, TypeError, ValueError):
            return Failure(request_id, "transport", "what the server sent is no chat completion")
        if reason == "content_filter":
            return Failure(request_id, "declined", "the server stopped it: finish_reason content_filter", final=True)
        if reason not in ("stop", "length"):
            return Failure(request_id, "transport", f"the server stopped it: finish_reason {reason}")
        return Reply(request_id, text, reason, seconds, usage[0], usage[1], bool(refusal), thought)

    def _thought(self, message: Any) -> str | None:
        """A thought that the server keeps apart, in one of the fields that servers have for it."""
        given = (getattr(message, name, None) for name in THOUGHTS)
        thought = next((text.strip() for text in given if isinstance(text, str) and text.strip()), None)
        return thought and self.clean(thought).encode("utf-8", "replace").decode()

    def _costs_nothing(self, error: Exception) -> bool:
        """Whether a request surely made no tokens: it did not get there, or was turned away. After a timeout, say, nobody knows."""
        if isinstance(error, _openai(self.section).APIStatusError):
            return error.status_code not in GAVE_UP_WAITING
        # By name: it is httpx or httpx2 that says so, as openai's version has it.
        return type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")

    def _failure(self, request_id: str, error: Exception, attempt: int) -> tuple[Failure, float | None]:
        """(what became of a try, how long to wait before the next; None where it would be the same again). Raises what is no failure."""
        openai = _openai(self.section)
        detail = self.clean(f"{type(error).__name__}: {error}")
        wait = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.75, 1.25)
        if isinstance(error, TimeoutError | openai.APITimeoutError):
            return Failure(request_id, "timeout", f"no answer in {self.settings.timeout:g} s"), wait
        if isinstance(error, openai.APIStatusError):
            if error.status_code in MAY_PASS or error.status_code >= 500:
                return Failure(request_id, "transport", detail), _asked_to_wait(error.response.headers, wait)
            filtered = FILTERED.search(str(error.code)) is not None  # servers say it in numbers too
            declined = filtered or error.status_code in REQUESTS_OWN_FAULT
            return Failure(request_id, "declined" if declined else "transport", detail, final=filtered), None
        if isinstance(error, openai.APIConnectionError):
            return Failure(request_id, "transport", detail), wait
        if isinstance(error, openai.OpenAIError | ValueError):
            return Failure(request_id, "transport", f"what the server sent is no chat completion ({detail})"), None
        raise error


def _usage(completion: Any) -> Usage:
    """What the server says that was used, whatever became of the reply."""
    usage = getattr(completion, "usage", None)
    counts = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    read, written = (count if isinstance(count, int) and count >= 0 else None for count in counts)
    return read, written


async def _next(stream: AsyncGenerator[Reply | Failure, None]) -> Reply | Failure | None:
    return await anext(stream, None)


def _asked_to_wait(headers: Any, otherwise: float) -> float:
    """What the server asks for in seconds or milliseconds, within reason."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return min(max(float(headers[name]) * unit, 0.0), LONGEST_WAIT)
        except (KeyError, ValueError):  # absent, or a date
            continue
    return otherwise


def _message(turn: Turn, request_id: str) -> dict[str, Any]:
    """Images before the text, as every family's template has them; plain text where there is none."""
    if not turn.images:
        return {"role": turn.role, "content": turn.text}
    urls = [{"type": "image_url", "image_url": {"url": _data_url(image, request_id)}} for image in turn.images]
    return {"role": turn.role, "content": [*urls, {"type": "text", "text": turn.text}]}


def _data_url(image: Any, request_id: str) -> str:
    """The very pixels that are trained on: a file as it is might be turned by its EXIF data, or be in a format the server lacks."""
    encoded = encode_png(load_image(image, f"row {request_id}")).bytes
    assert encoded is not None
    return f"data:image/png;base64,{base64.b64encode(encoded).decode()}"


def _openai(section: str) -> Any:
    try:
        import openai
    except ImportError as error:
        raise UserError(
            f"{section}.base_url needs the package openai, which is absent: pip install 'vsil-align[openai]' ({error})"
        ) from error
    return openai
