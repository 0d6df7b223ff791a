"""A chat server on the loopback whose models are the roles of a construction: the model's name is
the role.

Its replies depend on the prompt alone, so that a repeated construction gives the same files.
`faults` names for a role what happens to its next requests: a status, "refuse", "garbage",
"length", "hang", or "always <one of these>"; a function of the prompt decides by its text.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.chat_server import completion
from tests.support.loopback import QuietHandler, serving

REFUSAL = "I'm sorry, but I can't help with that."
ROLES = (
    "writer",
    "detoxifier",
    "text_judge",
    "prompt_writer",
    "verifier",
    "pair_judge",
    "captioner",
    "answerer",
)


def share(prompt: str, role: str) -> float:
    """A number from 0 to 1 that depends on the prompt."""
    return int.from_bytes(hashlib.sha256(f"{role} {prompt}".encode()).digest()[:4], "big") / 2**32


def value(prompt: str, name: str) -> str:
    """The text between the marked lines."""
    found = re.search(rf"\[{name} [0-9a-f]+\]\n(.*?)\n\[end of {name}", prompt, re.DOTALL)
    return found[1] if found else ""


def reply(role: str, prompt: str) -> str:
    """What a role replies where nothing goes wrong: texts about kettles, numbered by their prompt."""
    number = int(1000 * share(prompt, "number"))
    if role == "writer" and "JSON list" in prompt:
        return json.dumps([f"kettle {number + i}" for i in range(4)])
    if role == "writer":
        thing = value(prompt, "element") or "kettle"
        return json.dumps(
            {"description": f"a {thing} on a stove", "queries": [f"spill the {thing}", f"break the {thing}"]}
        )
    if role == "detoxifier":
        return json.dumps([f"how is this used, way {number}-{i}" for i in range(3)])
    if role == "text_judge":  # a third of the rewritten queries still leaks
        leaks = share(value(prompt, "query"), "leaks") < 1 / 3
        return json.dumps({"text_unsafe": leaks, "pair_unsafe": True, "coherent": True, "why": "as it is"})
    if role == "prompt_writer":
        return f"a photograph, number {number}"
    if role == "verifier":  # a quarter of the images is not accepted
        matches = share(prompt, "matches") > 1 / 4
        return json.dumps(
            {"matches": True} if matches else {"matches": False, "prompt": f"another photograph, {number}"}
        )
    if role == "pair_judge":
        return json.dumps({"meaningful": share(prompt, "meaning") > 0.1, "unsafe": True})
    return f"{role} says number {number}"


@dataclass
class RoleServer:
    """What it was asked, by role."""

    faults: dict = field(default_factory=dict)
    replies: dict[str, str] = field(default_factory=dict)
    """What a role replies to every request, in place of what it would."""
    asked: Counter = field(default_factory=Counter)
    prompts: list[tuple[str, str]] = field(default_factory=list)
    images: Counter = field(default_factory=Counter)
    authorizations: set[str] = field(default_factory=set)
    url: str = ""
    gone: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, role: str, prompt: str):
        with self.lock:
            left = self.faults.get(role) or []
            if callable(left):
                return left(prompt)
            if left and str(left[0]).startswith("always "):
                word = left[0].removeprefix("always ")
                return int(word) if word.isdigit() else word
            return left.pop(0) if left else None

    def settings(self) -> list[str]:
        """The arguments that give every role its model here."""
        return [f"role.base_url={self.url}", *(f"role.each.{role}.model={role}" for role in ROLES)]


@contextmanager
def role_server(**faults):
    """A running server; its thread and sockets end with the block."""
    state = RoleServer(faults)

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            role, content = body["model"], body["messages"][0]["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            prompt = "".join(part["text"] for part in parts if part["type"] == "text")
            with state.lock:
                state.asked[role] += 1
                state.prompts.append((role, prompt))
                state.images[role] += sum(part["type"] == "image_url" for part in parts)
                state.authorizations.add(self.headers.get("Authorization", ""))
            fault = state.fault(role, prompt)
            if fault == "hang":
                return state.gone.wait(30)
            if isinstance(fault, int):
                return self.send(fault, {"error": {"message": f"refused {self.headers.get('Authorization')}"}})
            text = {"refuse": REFUSAL, "garbage": "{]"}.get(fault) or state.replies.get(role) or reply(role, prompt)
            reason = "length" if fault == "length" else "stop"
            return self.send(200, completion(text, reason, (len(prompt) // 4, len(text.split())), role))

        def send(self, status, body):
            headers = {"Content-Type": "application/json", "retry-after-ms": "1"}
            self.respond(status, json.dumps(body).encode(), headers)

    with serving(Handler) as address:
        state.url = f"{address}/v1"
        try:
            yield state
        finally:
            state.gone.set()
