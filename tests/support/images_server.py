"""A server on the loopback that speaks /v1/images/generations and /v1/images/edits, keeps what it
was asked, and fails as it is told to.
"""

from __future__ import annotations

import base64
import email
import email.policy
import io
import json
import threading
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from PIL import Image, ImageOps

from tests.support.loopback import QuietHandler, serving


@dataclass
class Asked:
    """One request for an image, as a server reads it."""

    path: str
    prompt: str
    body: dict
    image: Image.Image | None
    authorization: str


@dataclass
class ImagesServer:
    """What it was asked, and how it answers: `faults` names for a prompt what happens to its next
    requests, one after another.

    A fault is a status; hang, reset, html, policy, moderation, no seed, no data, garbage, not
    base64, black, jpeg, prefixed, data; the image at an address: url, other port, other host, file,
    redirect, gone once; or "always <fault>".
    """

    faults: dict[str, list] = field(default_factory=dict)
    edits: bool = True
    """Whether it has /images/edits."""
    together: int = 1
    """So many requests wait for each other before they are answered."""
    asked: list[Asked] = field(default_factory=list)
    fetched: list[tuple[str, str, str]] = field(default_factory=list)
    """(host, path, authorization) of every image that was fetched from its address."""
    url: str = ""
    most: int = 0
    """Requests that were there at a time."""
    now: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    gone: threading.Event = field(default_factory=threading.Event)

    def fault(self, prompt: str):
        with self.lock:
            left = self.faults.get(prompt) or self.faults.get("*") or []
            if left and str(left[0]).startswith("always "):
                word = left[0].removeprefix("always ")
                return int(word) if word.isdigit() else word
            return left.pop(0) if left else None


def color_of(prompt: str, seed: int) -> tuple[int, int, int]:
    """The color of an image: no two prompts or seeds alike."""
    number = zlib.crc32(f"{prompt} {seed}".encode())
    return (number & 255, number >> 8 & 255, 128 | number >> 16 & 127)


def picture(asked: Asked, size: str = "16x12") -> Image.Image:
    """What the server makes: one color, or the negative of the given image."""
    if asked.image is not None:
        return ImageOps.invert(asked.image)
    width, height = map(int, asked.body.get("size", size).split("x"))
    return Image.new("RGB", (width, height), color_of(asked.prompt, int(asked.body.get("seed", 0))))


def file_of(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


class ImagesHandler(QuietHandler):
    """Answers as its server's faults say."""

    state: ImagesServer
    made: dict[str, bytes]
    """{path: content} of images at an address"""
    gathered: threading.Barrier
    elsewhere: str
    """The address of the second server."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """An image at its address. `made` keeps their content."""
        self.state.fetched.append((self.headers["Host"], self.path, self.headers.get("Authorization", "")))
        if self.path.startswith("/moved/"):
            return self.respond(302, b"", {"Location": self.elsewhere + self.path.removeprefix("/moved")})
        if self.path.startswith("/unsure/") and len(self.state.fetched) == 1:
            return self.respond(503, b"", {})
        return self.respond(200, self.made["/" + self.path.rpartition("/")[2]], {"Content-Type": "image/png"})

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        asked = read(self.path, content, self.headers)
        with self.state.lock:
            self.state.asked.append(asked)
            self.state.now += 1
            self.state.most = max(self.state.most, self.state.now)
        self.gathered.wait(10)
        with self.state.lock:
            self.state.now -= 1
        if self.path == "/v1/images/edits" and not self.state.edits:
            return self.send({"detail": "Not Found"}, 404)
        return self.answer(asked, self.state.fault(asked.prompt))

    def answer(self, asked, fault):
        if fault == "hang":
            return self.state.gone.wait(20)
        if fault == "reset":
            return self.close()
        if isinstance(fault, int):  # a careless server repeats the key
            return self.send({"error": {"message": f"refused {asked.authorization}", "code": None}}, fault)
        if fault in ("policy", "moderation"):
            code = {"policy": "content_policy_violation", "moderation": "moderation_blocked"}[fault]
            return self.send({"error": {"message": "not allowed", "code": code, "type": "user_error"}}, 400)
        if fault == "no seed":
            return self.send({"error": {"message": "Unknown parameter: 'seed'.", "code": "unknown_parameter"}}, 400)
        if fault == "html":
            return self.respond(200, b"<html>a login page</html>", {"Content-Type": "text/html"})
        return self.send({"created": 0, "data": [self.entry(asked, fault)] if fault != "no data" else []})

    def entry(self, asked, fault):
        """One image in a reply."""
        image = picture(asked)
        content = file_of(image, "JPEG" if fault == "jpeg" else "PNG")
        content = {"garbage": content[:40], "black": file_of(Image.new("RGB", (4, 4)))}.get(fault, content)
        encoded = base64.b64encode(content).decode()
        name = f"/{len(self.made)}.png"
        self.made[name] = content
        addresses = {
            "url": self.state.url.removesuffix("/v1") + name,
            "other port": self.elsewhere + name,
            "other host": self.elsewhere.replace("127.0.0.1", "localhost") + name,
            "file": "file:///etc/hostname",
            "redirect": f"{self.state.url.removesuffix('/v1')}/moved{name}",
            "gone once": f"{self.state.url.removesuffix('/v1')}/unsure{name}",
            "data": f"data:image/png;base64,{encoded}",
        }
        if fault in addresses:
            return {"url": addresses[fault]}
        return {"b64_json": {"not base64": "%%%", "prefixed": f"data:image/png;base64,{encoded}"}.get(fault, encoded)}

    def close(self):
        self.close_connection = True

    def send(self, body, status=200):
        self.respond(status, json.dumps(body).encode(), {"Content-Type": "application/json", "retry-after-ms": "1"})


@contextmanager
def images_server(**settings):
    """A running server, and a second one at another port of the same host; both end with the block."""
    state = ImagesServer(**settings)
    shared = {"state": state, "made": {}, "gathered": threading.Barrier(state.together)}
    handler = type("Handler", (ImagesHandler,), shared)
    with ExitStack() as stack:
        address, handler.elsewhere = (stack.enter_context(serving(handler)) for _ in range(2))
        state.url = f"{address}/v1"
        try:
            yield state
        finally:
            state.gone.set()


def read(path: str, content: bytes, headers) -> Asked:
    authorization = headers.get("Authorization", "")
    if headers["Content-Type"].startswith("application/json"):
        body = json.loads(content)
        return Asked(path, body["prompt"], body, None, authorization)
    form = email.message_from_bytes(
        f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + content, policy=email.policy.HTTP
    )
    parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
    image = Image.open(io.BytesIO(parts.pop("image").get_payload(decode=True)))
    assert image.format == "PNG"
    body = {name: part.get_payload(decode=True).decode() for name, part in parts.items()}
    return Asked(path, body["prompt"], body, image.convert("RGB"), authorization)
