"""A server on the loopback that speaks as much of the Hugging Face hub's API as an upload needs,
and keeps what it is sent.
"""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.loopback import QuietHandler, serving


@dataclass
class Hub:
    """Its repositories: whether they are private, and their files. `token` is the one that may write."""

    token: str = "hf_secret"
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    """By sha256: what came the way of large files (git-lfs)."""
    commits: list[str] = field(default_factory=list)
    url: str = ""


class _Handler(QuietHandler):
    """Answers the requests to one hub, and changes its repositories."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self):
        repo = self.path.removeprefix("/api/models/")
        if repo not in self.hub.private:
            return self.reply(404, {"error": "Repository not found"})
        return self.reply(200, {"id": repo, "private": self.hub.private[repo], "siblings": []})

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.large[hashlib.sha256(content).hexdigest()] = content
        return self.reply(200, {})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":  # a careless server repeats the key
            return self.reply(403, {"error": f"may not write: {self.headers.get('Authorization')}"})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            status = 409 if repo in self.hub.private else 200
            self.hub.private.setdefault(repo, asked["visibility"] == "private")
            return self.reply(status, {"url": f"{self.hub.url}/{repo}", "error": "exists"})
        if self.path == "/api/validate-yaml":
            return self.reply(200, {"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in files}
            return self.reply(
                200,
                {"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()]},
            )
        if self.path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            actions = [{"upload": {"href": f"{self.hub.url}/large/{it['oid']}"}} for it in wanted]
            objects = [it | {"actions": action} for it, action in zip(wanted, actions, strict=True)]
            return self.reply(200, {"transfer": "basic", "objects": objects})
        repo = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        self.commit(self.hub.files.setdefault(repo, {}), [json.loads(line) for line in body.splitlines()])
        return self.reply(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/1", "commitOid": "1"})

    def commit(self, files, lines):
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.commits.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                files[value["path"]] = self.hub.large[value["oid"]]

    def reply(self, status, body):
        self.respond(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


@contextmanager
def hub_server(**state):
    """A running server; its thread and sockets end with the block."""
    hub = Hub(**state)
    handler = type("Handler", (_Handler,), {"hub": hub})
    with serving(handler) as hub.url:
        yield hub
