"""Answers of a model behind an OpenAI-compatible address: vLLM, SGLang, `transformers serve`, and hosted ones."""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any
from urllib.parse import urlsplit

from align.data.images import encode_png, load_image
from align.errors import UserError
from align.generation.answer import Answer, Unanswered
from align.rows import ImageRef, Row
from align.settings import Answering

MAX_RETRIES = 5
"""Of one request, by the client: after half a second, one, two, four and eight, or when the server says."""
GIVE_UP = 20
"""So many failures one after another are the server's, not the rows'."""


def check_settings(settings: Answering) -> None:
    """Raises UserError for settings that do not go together, and where a key stands in them, which they are no place for."""
    for key in ("max_new_tokens", "batch_size", "concurrency", "timeout"):
        if getattr(settings, key) <= 0:
            raise UserError(f"generation.{key}={getattr(settings, key)}: expected more than 0")
    if settings.api_key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", settings.api_key_env):
        raise UserError(
            "generation.api_key_env: expected the NAME of an environment variable in capitals, e.g. MY_KEY; what was found is not "
            "shown, since it may be a key: `export MY_KEY=...`, then generation.api_key_env=MY_KEY"
        )
    if settings.base_url is None:
        given = [key for key in ("model", "api_key_env") if getattr(settings, key) is not None]
        if given:
            raise UserError(f"generation.{given[0]} is given without generation.base_url, the address to ask")
        return
    address = urlsplit(settings.base_url)
    if address.username or address.password or address.query:
        raise UserError(
            "generation.base_url holds a user name, a password or a query, which would be written into the run's files; give the "
            "bare address, and a key through generation.api_key_env"
        )
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UserError(f"generation.base_url={settings.base_url}: expected an address like http://localhost:8000/v1")
    if settings.model is None:
        raise UserError(f"generation.base_url={settings.base_url}: give generation.model=, the model's name there")


class Endpoint:
    """A model behind an address. Nothing is sent before it is asked something.

    It is known by its name alone: the same model on another port or node has given its answers already.
    """

    def __init__(self, settings: Answering):
        self._settings = settings
        self.name, self.place = str(settings.model), f" behind {settings.base_url}"
        self.identity = {"model": settings.model}

    def prompt(self, row: Row) -> str:
        """What is sent of a row, but for its pictures; the server puts it into the model's template."""
        return row.prompt

    def answers(self, rows: Sequence[Row]) -> Iterator[Answer | Unanswered]:
        """Answers as they come, not in the order of the rows. Raises UserError where the server answers nobody."""
        key = self._key()
        client = self._client(key)
        pool = ThreadPoolExecutor(self._settings.concurrency)
        failures = 0
        try:
            for done in as_completed([pool.submit(self._answer, client, row) for row in rows]):
                answer = done.result()
                if isinstance(answer, Unanswered):
                    # A server may repeat the key that it refuses.
                    answer.reason = answer.reason.replace(key, "(the key)") if key else answer.reason
                failures = failures + 1 if isinstance(answer, Unanswered) else 0
                yield answer
                if failures == GIVE_UP:
                    return
        finally:
            pool.shutdown(cancel_futures=True)
            client.close()

    def _key(self) -> str:
        name = self._settings.api_key_env
        if name is not None and not os.environ.get(name):
            raise UserError(f"generation.api_key_env={name}: there is no such environment variable, or it is empty")
        return os.environ[name].strip() if name else ""

    def _client(self, key: str) -> Any:
        try:
            import openai
        except ImportError as error:
            raise UserError(
                f"generation.base_url needs the package openai, which is absent: pip install 'vsil-align[openai]' ({error})"
            ) from error
        # Without a key of its own the client would take OPENAI_API_KEY, whatever the address.
        return openai.OpenAI(
            api_key=key or "none",
            base_url=self._settings.base_url,
            timeout=self._settings.timeout,
            max_retries=MAX_RETRIES,
        )

    def _answer(self, client: Any, row: Row) -> Answer | Unanswered:
        from openai import OpenAIError

        content = _content(row)
        begun = time.monotonic()
        try:
            completion = client.chat.completions.create(
                model=self._settings.model,
                messages=[{"role": "user", "content": content}],
                temperature=0,
                max_tokens=self._settings.max_new_tokens,
            )
            choice = completion.choices[0]
            response, reason = (choice.message.content or "").strip(), choice.finish_reason
            response.encode()  # half a character could not be stored; its error is a ValueError
        except OpenAIError as error:
            return Unanswered(row.id, f"{type(error).__name__}: {error}")
        except (AttributeError, IndexError, TypeError, ValueError):
            return Unanswered(row.id, "what the server sent is no chat completion")
        if reason not in ("stop", "length"):
            return Unanswered(row.id, f"the server stopped it: finish_reason {reason}")
        tokens = completion.usage.completion_tokens if completion.usage else None
        return Answer(row.id, response, reason, tokens, time.monotonic() - begun)


def _content(row: Row) -> Any:
    """Pictures before the request, as every family's template has them; plain text where there is none."""
    if not row.images:
        return row.prompt
    pictures = [{"type": "image_url", "image_url": {"url": _data_url(image, row)}} for image in row.images]
    return [*pictures, {"type": "text", "text": row.prompt}]


def _data_url(image: ImageRef, row: Row) -> str:
    """The very pixels that are trained on: a file as it is might be turned by its EXIF data, or be in a format the server lacks."""
    encoded = encode_png(load_image(image, f"row {row.id} of {row.source}")).bytes
    assert encoded is not None
    return f"data:image/png;base64,{base64.b64encode(encoded).decode()}"
