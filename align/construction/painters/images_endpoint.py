"""A painter behind an OpenAI-compatible images endpoint: /images/generations, and /images/edits for
jobs with an image.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from align.answering.breaker import advice
from align.answering.budget import Usage
from align.answering.conversation import Failure, Request
from align.answering.sending import Sender, openai_of
from align.construction.painters.checks import is_black, refuse_unused
from align.construction.painters.function import encoded
from align.construction.painters.painter import Painted, Painting
from align.data.images import load_image
from align.errors import UserError
from align.rows import ImageRef
from align.settings import PainterSettings

OF_PIPELINES = ("revision", "device", "dtype", "offload", "batch_size", "steps", "guidance", "call")
PRICES = ("price_in", "price_out", "max_cost")
BY_PAINTER = ("prompt", "image", "model", "n")
"""Parameters of a request that the painter itself sets, and their like."""
FILTERED = re.compile(r"content.?filter|content.?policy|moderation|safety|sensitive|nsfw|invalid_prompt", re.IGNORECASE)
"""Names of servers' own filters in the codes and types of errors."""
ADVICE = (
    (r"\bseed\b", "give {0}.extra.seed=null, which removes this parameter; the images then do not depend on seeds"),
    (r"response_format", "give {0}.extra.response_format=null, or another value of it"),
    (r"\bsize\b|width|height", "give {0}.width= and {0}.height= of a size that the server has"),
)
"""(pattern of an error message, what to do, with the section of settings); the first match is used."""
AS_BASE64 = "the server should return the image itself: give {0}.extra.response_format=b64_json"


class ImagesEndpoint(Sender[Painting, Painted]):
    """An image model behind an endpoint. Nothing is sent before the first job."""

    edits = True
    expected = "a reply with an image"

    def __init__(self, name: str, settings: PainterSettings):
        """Raises UserError for invalid settings, if the key is not in the environment, or if the
        package openai is absent.
        """
        where = f"{name}.base_url= is an endpoint"
        refuse_unused(
            settings,
            name,
            OF_PIPELINES,
            f"{where}, which does not use it; give the server's own name of it as {name}.extra.<name>=",
        )
        refuse_unused(
            settings,
            name,
            PRICES,
            "prices are per token, and images have prices of their own, so costs are not counted; give "
            f"{name}.max_calls=, the limit of the cost divided by the price of an image",
        )
        for key in BY_PAINTER:
            if key in settings.extra:
                raise UserError(f"{name}.extra.{key}: this parameter is set for each image; remove it")
        super().__init__(settings, name)
        self.name = name
        self._size = _size(settings, name)
        self.identity: dict[str, Any] = {"model": settings.model, "size": self._size, "extra": settings.extra}

    def paint(self, jobs: Sequence[Painting]) -> Iterator[Painted | Failure]:
        """One image or failure per job, in the order of arrival. Raises UserError if the limit of calls is reached."""
        yield from self.results(jobs)

    def usage(self) -> str:
        """The number of requests so far, retries included."""
        return f"{self.budget.calls:,} calls" if self.budget.calls else ""

    def advice(self, detail: str, request: Request) -> str:
        """What the user can do about a failed request; empty if unknown."""
        return advice(detail, self.section, request, ADVICE)

    def filtered(self, error: Any) -> bool:
        """Whether a status error comes from a filter of the server."""
        return FILTERED.search(f"{error.code} {error.type}") is not None

    async def ask(self, client: Any, job: Painting) -> Painted | Failure:
        """The image of one job. It is requested once, even if its download must be repeated."""
        try:
            given = await asyncio.to_thread(_png, job.image, f"item {job.id}") if job.image else None
        except UserError as error:
            return Failure(job.id, "missing_image", str(error))
        replies: list[Any] = []

        async def send() -> bytes | Failure:
            if not replies:
                replies.append(await self._requested(client, job, given))
            content = await self._content(client, job.id, replies[0])
            return content if isinstance(content, Failure) else await asyncio.to_thread(self._decoded, job.id, content)

        def read(found: bytes | Failure, _: Usage, seconds: float) -> Painted | Failure:
            return found if isinstance(found, Failure) else Painted(job.id, found, seconds)

        found = await self.tries(Request(job.id, (), 0), send, read)
        no_edits = given is not None and not replies and isinstance(found, Failure) and "NotFoundError" in found.detail
        if no_edits and isinstance(found, Failure):
            return replace(
                found,
                help=f"the server may have no /images/edits; give another {self.name}.base_url=, or check .model=",
            )
        return found

    async def _requested(self, client: Any, job: Painting, given: bytes | None) -> Any:
        extra = self.settings.extra
        ours: dict[str, Any] = {"size": self._size} if self._size and "size" not in extra else {}
        body = {key: value for key, value in ({"seed": job.seed} | extra).items() if value is not None}
        ours |= {"model": self.settings.model, "prompt": job.prompt, "extra_body": body}
        if given is None:
            return await client.images.generate(**ours)
        return await client.images.edit(image=("image.png", given, "image/png"), **ours)

    async def _content(self, client: Any, job_id: str, reply: Any) -> bytes | Failure:
        """The encoded image in a reply, or at its address, which must be at the endpoint's host."""
        data = getattr(reply, "data", None)
        entry = data[0] if isinstance(data, list) and data else None
        inline, url = getattr(entry, "b64_json", None), getattr(entry, "url", None)
        if isinstance(url, str) and not inline and not url.startswith("data:"):
            return await self._downloaded(client, job_id, url)
        inline = inline or url
        if not isinstance(inline, str):
            return Failure(job_id, "transport", f"the server's reply is not {self.expected}")
        try:
            return base64.b64decode(inline.partition(",")[2] if inline.startswith("data:") else inline)
        except ValueError as error:
            return Failure(job_id, "transport", f"the server's reply is not {self.expected}: base64: {error}")

    async def _downloaded(self, client: Any, job_id: str, url: str) -> bytes | Failure:
        try:
            here, there = urlsplit(str(self.settings.base_url)), urlsplit(url)
            same_port = (here.scheme, here.port) == (there.scheme, there.port)
        except ValueError:
            return Failure(job_id, "transport", "the server returned an address that is not a URL")
        if there.scheme not in ("http", "https") or there.hostname != here.hostname:
            place = f"{there.scheme or 'no scheme'}, host {there.hostname or 'not given'}"
            detail = f"the server returned the image's address ({place}), which is not followed: it is not at {here.hostname}"
            return Failure(job_id, "transport", self.clean(detail), help=AS_BASE64.format(self.section))
        openai = openai_of(self.section)
        # The key goes to the endpoint only; a redirect could lead anywhere.
        headers = {} if same_port else {"Authorization": openai.Omit()}
        kind = openai.HttpxBinaryResponseContent
        reply = await client.get(url, cast_to=kind, options={"headers": headers, "follow_redirects": False})
        return bytes(reply.content)

    def _decoded(self, job_id: str, content: bytes) -> bytes | Failure:
        """The image as PNG, whatever its format was."""
        try:
            image = load_image(ImageRef(bytes=content), f"item {job_id}")
        except UserError as error:
            return Failure(
                job_id, "transport", self.clean(f"the server's image cannot be decoded: {error.__cause__ or error}")
            )
        if is_black(image):
            return Failure(job_id, "declined", "the image is completely black, as safety checkers return it")
        return encoded(image)


def _size(settings: PainterSettings, name: str) -> str | None:
    width, height = settings.width, settings.height
    if (width is None) != (height is None):
        raise UserError(f"{name}.{'width' if width is None else 'height'}= is not given; give both or none of them")
    if width is None or height is None:
        return None
    if min(width, height) < 1:
        raise UserError(f"{name}.width={width} {name}.height={height}: expected at least 1")
    return f"{width}x{height}"


def _png(image: ImageRef, where: str) -> bytes:
    """The image as decoded everywhere here: the file itself may have an orientation, or a format
    unknown to the server.
    """
    return encoded(load_image(image, where))
