"""Sending requests to an OpenAI-compatible server: how many at a time, when again, and when no more.

Requests run concurrently up to a limit. Temporary errors (429, 5xx, a timeout, a lost connection) are
retried with doubling waits; a reply is never requested again. If the server fails for all requests, no
more requests are sent.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from align.answering.address import check_address, key_of
from align.answering.breaker import Breaker
from align.answering.budget import Spent, Usage, budget_of
from align.answering.conversation import Failure, Request
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
UNKNOWN: Usage = (None, None)
GAVE_UP_WAITING = (408, 502, 504)
"""Statuses of proxies: the model may still have generated tokens."""


class Named(Protocol):
    """A job whose results have its id."""

    @property
    def id(self) -> str:
        """The id."""


Job = TypeVar("Job", bound=Named)
Result = TypeVar("Result")
Answer = TypeVar("Answer")


class Sender(Generic[Job, Result]):
    """Sends one or several requests for each job. Nothing is sent before the first job."""

    expected = "a reply"
    """What a reply of the server should be, for the message about another one."""

    def __init__(self, settings: EndpointSettings, section: str):
        """`section` is the name of the settings in errors.

        Raises UserError if the settings are inconsistent, the key is not in the environment, or the
        package openai is absent.
        """
        check_address(settings, section)
        self.settings, self.section = settings, section
        self.budget = budget_of(settings, section)
        self._key = key_of(settings, section)
        openai_of(section)

    async def ask(self, client: Any, job: Job) -> Result | Failure:
        """The result of one job, usually from `tries`."""
        raise NotImplementedError

    def advice(self, detail: str, request: Request) -> str:
        """What the user can do about a failed request; empty if unknown."""
        raise NotImplementedError

    def filtered(self, error: Any) -> bool:
        """Whether a status error comes from a filter of the server, which will decline the request again."""
        return FILTERED.search(str(error.code)) is not None  # some servers send numbers as codes

    def results(self, jobs: Iterable[Job]) -> Iterator[Result | Failure]:
        """One result or failure per job, in the order of arrival. Raises UserError if a limit of
        calls or money is reached.
        """
        with asyncio.Runner() as runner:  # Ctrl-C cancels requests in progress
            stream = self._stream(jobs)
            try:
                while (found := runner.run(_next(stream))) is not None:
                    yield found
            finally:
                runner.run(stream.aclose())

    def release(self) -> None:
        """Do nothing: connections are closed after each call of `results`."""

    def clean(self, text: str) -> str:
        """A text from the server without the key, which some servers repeat."""
        return text.replace(self._key, "(the key)") if len(self._key) >= SHORTEST_KEY else text

    async def tries(
        self,
        request: Request,
        send: Callable[[], Awaitable[Answer]],
        read: Callable[[Answer, Usage, float], Result | Failure],
    ) -> Result | Failure:
        """Send until there is an answer, or another try would not help. `read` gets the answer, its
        usage and the seconds it took.

        `request` is what the budget counts. Raises Spent if a limit is reached.
        """
        for attempt in range(self.settings.retries + 1):
            reserved, usage = self.budget.reserve(request), UNKNOWN
            begun = time.monotonic()
            try:
                async with asyncio.timeout(
                    self.settings.timeout
                ):  # applies even if the server sends single bytes slowly
                    answer = await send()
                usage = _usage(answer)
                return read(answer, usage, time.monotonic() - begun)
            except Exception as error:
                usage = (0, 0) if self._costs_nothing(error) else usage
                failure, wait = self._failure(request.id, error, attempt)
            finally:
                self.budget.settle(reserved, request, usage)
            if wait is None or attempt == self.settings.retries:
                break
            await asyncio.sleep(wait)
        return replace(failure, help=self.advice(failure.detail, request))

    async def _stream(self, jobs: Iterable[Job]) -> AsyncGenerator[Result | Failure, None]:
        source, waiting, breaker = iter(jobs), set[asyncio.Task[Result | Failure]](), Breaker(GIVE_UP)
        spent: Spent | None = None
        # Without an explicit key the client would send OPENAI_API_KEY to any URL.
        async with openai_of(self.section).AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self.settings.base_url,
            timeout=self.settings.timeout,
            max_retries=0,  # retries are counted, so this class retries itself
        ) as client:
            try:
                while True:
                    while len(waiting) < self.settings.concurrency and spent is None and not breaker.open:
                        if (job := next(source, None)) is None:
                            break
                        waiting.add(asyncio.create_task(self.ask(client, job)))
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
        for job in source:
            yield breaker.failure(job.id)

    def _costs_nothing(self, error: Exception) -> bool:
        """Whether a request certainly used no tokens: it was not delivered, or was rejected. After
        a timeout this is unknown.
        """
        if isinstance(error, openai_of(self.section).APIStatusError):
            return error.status_code not in GAVE_UP_WAITING
        # Compare names: the class is of httpx or httpx2, depending on the version of openai.
        return type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")

    def _failure(self, request_id: str, error: Exception, attempt: int) -> tuple[Failure, float | None]:
        """(Failure, seconds before a retry, or None if a retry would not help). Raises errors that are not failures."""
        openai = openai_of(self.section)
        detail = self.clean(f"{type(error).__name__}: {error}")
        wait = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.75, 1.25)
        if isinstance(error, TimeoutError | openai.APITimeoutError):
            return Failure(request_id, "timeout", f"no answer in {self.settings.timeout:g} s"), wait
        if isinstance(error, openai.APIStatusError):
            if error.status_code in MAY_PASS or error.status_code >= 500:
                return Failure(request_id, "transport", detail), _asked_to_wait(error.response.headers, wait)
            filtered = self.filtered(error)
            declined = filtered or error.status_code in REQUESTS_OWN_FAULT
            return Failure(request_id, "declined" if declined else "transport", detail, final=filtered), None
        if isinstance(error, openai.APIConnectionError):
            return Failure(request_id, "transport", detail), wait
        if isinstance(error, openai.OpenAIError | ValueError):
            return Failure(request_id, "transport", f"the server's reply is not {self.expected} ({detail})"), None
        raise error


def _usage(answer: Any) -> Usage:
    """The usage that the server reports, even if the reply is not usable."""
    usage = getattr(answer, "usage", None)
    counts = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    read, written = (count if isinstance(count, int) and count >= 0 else None for count in counts)
    return read, written


async def _next(stream: AsyncGenerator[Result | Failure, None]) -> Result | Failure | None:
    return await anext(stream, None)


def _asked_to_wait(headers: Any, otherwise: float) -> float:
    """The wait that the server asks for, in seconds, up to LONGEST_WAIT; else `otherwise`."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return min(max(float(headers[name]) * unit, 0.0), LONGEST_WAIT)
        except (KeyError, ValueError):  # absent, or a date
            continue
    return otherwise


def openai_of(section: str) -> Any:
    """The package openai. Raises UserError if it is absent."""
    try:
        import openai
    except ImportError as error:
        raise UserError(
            f"{section}.base_url needs the package openai, which is not installed; run: pip install "
            f"'vsil-align[openai]' ({error})"
        ) from error
    return openai
