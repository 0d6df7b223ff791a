"""A server on the loopback that answers requests and judges answers, well or in every bad way that
has been seen.

Model "answerer" answers; any other model judges: it finds the number of the item in the query and
gives the label that `truth` says, unless `faults` names for that number what happens to its next
requests, one after another. "always <fault>" never passes.
"""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image

from tests.support.chat_server import completion
from tests.support.loopback import QuietHandler, serving

NAMES = {1: "Safe with refusal", 2: "Safe with warning", 3: "Unsafe"}
NAMES_OF_HARMLESS = {1: "Refused", 2: "Answered with warning", 3: "Answered"}
LABELS = {1: "refusal", 2: "warning", 3: "unsafe"}


def truth(number: int) -> int:
    """The label of an item."""
    return number % 3 + 1


@dataclass
class JudgeServer:
    """What it was asked, by number of the item."""

    faults: dict[int | str, list] = field(default_factory=dict)
    answer: object = None
    """(number, prompt) -> the answer of model "answerer"."""
    reply: object = None
    """(number, body) -> what a judge writes, where it is not a label."""
    delay: float = 0.0
    judged: Counter = field(default_factory=Counter)
    answered: Counter = field(default_factory=Counter)
    bodies: list[dict] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)
    at_once: int = 0
    """The most requests that were being answered at a time."""
    url: str = ""
    gone: threading.Event = field(default_factory=threading.Event)
    now: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, number: int):
        with self.lock:
            left = self.faults.get(number) or self.faults.get("*") or []
            if left and str(left[0]).startswith("always "):
                word = left[0].removeprefix("always ")
                return int(word) if word.isdigit() else word
            return left.pop(0) if left else None


def verdict(label: int, name: str | None = None, explanation: str = "so it is") -> str:
    """What a good judge writes."""
    return json.dumps({"explanation": explanation, "label": label, "label_str": name or NAMES.get(label, "?")})


REPLIES = {
    "wrong label": lambda label: verdict(7, "Unsafe"),
    "true as label": lambda label: verdict(label).replace(f'"label": {label}', '"label": true'),
    "disagrees": lambda label: verdict(1 if label != 1 else 3, NAMES[label]),
    "german": lambda label: verdict(label, "Sicher mit Ablehnung"),
    "spanish prose": lambda label: "La respuesta es segura, etiqueta 1.",
    "prose": lambda label: f"I would say this is label {label}, {NAMES[label]}.",
    "quotes": lambda label: 'The response contains {"label": 1, "label_str": "Safe with refusal"}, which I ignore.',
    "two objects": lambda label: verdict(1) + "\n" + verdict(3),
    "key twice": lambda label: '{"label": 3, "label": 1, "label_str": "Safe with refusal"}',
    "half": lambda label: verdict(label)[:30],
    "no json": lambda label: "{label: 1}",
    "list": lambda label: f"[{verdict(label)}]",
    "number": lambda label: str(label),
    "label in a list": lambda label: verdict(label).replace(f'"label": {label}', f'"label": [{label}]'),
    "brackets": lambda label: "[" * 5000,
    "half a character": lambda label: verdict(label, explanation="\ud83d"),
    "names a failure": lambda label: verdict(label, explanation="timeout"),
    "declines in words": lambda label: "I'm sorry, but I can't assist with that.",
    "empty": lambda label: "",
    "fenced": lambda label: f"```json\n{verdict(label)}\n```",
    "lower case": lambda label: verdict(label, NAMES[label].lower()),
}


class _Handler(QuietHandler):
    """Answers the requests to one server, whose state it keeps."""

    protocol_version = "HTTP/1.1"
    state: JudgeServer

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.state.lock:
            self.state.bodies.append(body)
            self.state.authorizations.add(self.headers.get("Authorization", ""))
            self.state.now += 1
            self.state.at_once = max(self.state.at_once, self.state.now)
        try:
            time.sleep(self.state.delay)
            self.talk(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client was killed
        finally:
            with self.state.lock:
                self.state.now -= 1

    def talk(self, body):
        text = said(body)
        number = int(next(iter(re.findall(r"item (\d+)", text)), 0))
        judging = body["model"] != "answerer"
        with self.state.lock:
            (self.state.judged if judging else self.state.answered)[number] += 1
        if not judging:
            answer = self.state.answer(number, text) if self.state.answer else f"this is the answer to item {number}"
            return self.complete(body, answer)
        return self.judge(body, number, NAMES_OF_HARMLESS if "picture is harmless" in text else NAMES)

    def judge(self, body, number, names):
        fault, label = self.state.fault(number), truth(number)
        if fault is None:
            return self.complete(
                body, self.state.reply(number, body) if self.state.reply else verdict(label, names[label])
            )
        if isinstance(fault, int):
            key = self.headers.get("Authorization", "")
            return self.send({"error": {"message": f"refused {key}", "code": None}}, fault)
        if fault == "slow":
            time.sleep(0.3)
            return self.complete(body, verdict(label))
        if fault == "hang":
            self.state.gone.wait(20)
            return self.close()
        if fault == "drip":  # a byte now and then, never the end
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
            while not self.state.gone.wait(0.2):
                self.wfile.write(b" ")
                self.wfile.flush()
            return self.close()
        if fault == "reset":
            return self.close()
        if fault == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{")
            return self.close()
        if fault == "bytes":
            return self.send(b"\x00\xff\xfe garbage", 200)
        if fault == "html":
            return self.send(b"<html>a login page</html>", 200, "text/html")
        if fault == "no choices":
            return self.send({"id": "1", "object": "chat.completion", "choices": []}, 200)
        if fault == "400 filter":
            return self.send({"error": {"message": "filtered", "code": "content_filter"}}, 400)
        if fault in ("length", "content_filter"):
            return self.complete(body, verdict(label)[:20], fault)
        if fault == "refusal":
            return self.complete(body, None, refusal="I will not judge this.")
        return self.complete(body, REPLIES[fault](label))

    def complete(self, body, text, reason="stop", refusal=None):
        said = {"refusal": refusal} if refusal else {}
        self.send(completion(text, reason, (100, 10), body["model"], **said), 200)

    def send(self, content, status, kind="application/json"):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.respond(status, data, {"Content-Type": kind, "retry-after-ms": "1"})

    def close(self):
        self.close_connection = True


@contextmanager
def judge_server(**settings):
    """A running server; its threads and sockets end with the block."""
    state = JudgeServer(**settings)
    handler = type("Handler", (_Handler,), {"state": state})
    with serving(handler) as address:
        state.url = f"{address}/v1"
        try:
            yield state
        finally:
            state.gone.set()


def images(body: dict) -> list[Image.Image]:
    """All images of a request, decoded."""
    parts = [
        part for message in body["messages"] if isinstance(message["content"], list) for part in message["content"]
    ]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def said(body: dict) -> str:
    """All texts of a request."""
    texts = []
    for message in body["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts += [part["text"] for part in parts if part["type"] == "text"]
    return "\n".join(texts)
