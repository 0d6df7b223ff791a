"""A server on the loopback that speaks /v1/chat/completions, keeps what it was asked, and fails as it is told to."""

from __future__ import annotations

import base64
import io
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image

from tests.support.loopback import QuietHandler, serving


@dataclass
class Asked:
    """One request, as a server reads it."""

    prompt: str
    images: list[Image.Image]
    body: dict
    authorization: str


@dataclass
class ChatServer:
    """What it was asked, and how it answers: `faults` names for a prompt what happens to its next
    requests, one after another.

    A fault is a status (429, 500, ...), "hang", "empty", "half" (of a character), "length",
    "content_filter", "html", or "always <status>".
    """

    faults: dict[str, list] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    gone: threading.Event = field(default_factory=threading.Event)

    def prompts(self) -> list[str]:
        return sorted(asked.prompt for asked in self.asked)

    def fault(self, prompt: str):
        left = self.faults.get(prompt) or self.faults.get("*") or []
        if left and str(left[0]).startswith("always "):
            return int(left[0].split()[1])
        return left.pop(0) if left else None


def answer_to(prompt: str) -> str:
    """What the server answers: no two questions alike."""
    return f"answer to {prompt}"


def completion(text, reason="stop", usage=None, model="m", **message):
    """A reply as such servers write it; `usage` is (input, output) tokens."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text} | message, "finish_reason": reason}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]}
    counted = usage and {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return body | ({"usage": counted} if usage else {})


@contextmanager
def chat_server(**faults):
    """A running server; its thread and sockets end with the block."""
    state = ChatServer(**faults)

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/chat/completions":
                return self.reply(404, {"error": {"message": f"no {self.path}"}})
            asked = read(body, self.headers.get("Authorization", ""))
            state.asked.append(asked)
            fault = state.fault(asked.prompt)
            if fault == "hang":
                return state.gone.wait(30)
            if isinstance(fault, int):  # a careless server repeats the key
                return self.reply(fault, {"error": {"message": f"refused {asked.authorization}"}})
            if fault == "html":
                return self.reply(200, "<html>a login page</html>")
            text, reason = answer_to(asked.prompt), "stop"
            if fault in ("empty", "half"):
                text = {"empty": " ", "half": "\ud83d"}[fault]
            elif fault is not None:
                reason = fault
            return self.reply(200, completion(text, reason, (1, len(text.split())), body["model"]))

        def reply(self, status, body):
            page = isinstance(body, str)
            content = (body if page else json.dumps(body)).encode()
            kind = "text/html" if page else "application/json"
            self.respond(status, content, {"Content-Type": kind, "retry-after-ms": "1"})

    with serving(Handler) as address:
        state.url = f"{address}/v1"
        try:
            yield state
        finally:
            state.gone.set()


def read(body: dict, authorization: str) -> Asked:
    *earlier, message = body["messages"]
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    assert not any(one["role"] == "user" for one in earlier) or earlier[-1]["role"] == "assistant"
    images = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert all(url.startswith("data:image/png;base64,") for url in images)
    decoded = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in images]
    return Asked("".join(part["text"] for part in parts if part["type"] == "text"), decoded, body, authorization)
