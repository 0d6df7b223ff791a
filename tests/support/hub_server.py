"""A server on the loopback that speaks as much of the Hugging Face hub's API as an upload needs, and keeps what it is sent."""

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


@contextmanager
def hub_server(**state):
    """A running server; its thread and sockets end with the block."""
    hub = Hub(**state)

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            repo = self.path.removeprefix("/api/models/")
            if repo not in hub.private:
                return self.reply(404, {"error": "Repository not found"})
            return self.reply(200, {"id": repo, "private": hub.private[repo], "siblings": []})

        def do_PUT(self):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            hub.large[hashlib.sha256(content).hexdigest()] = content
            return self.reply(200, {})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Authorization") != f"Bearer {hub.token}":  # a careless server repeats the key
                return self.reply(403, {"error": f"may not write: {self.headers.get('Authorization')}"})
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                repo = f"{asked['organization']}/{asked['name']}"
                status = 409 if repo in hub.private else 200
                hub.private.setdefault(repo, asked["visibility"] == "private")
                return self.reply(status, {"url": f"{hub.url}/{repo}", "error": "exists"})
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
                actions = [{"upload": {"href": f"{hub.url}/large/{it['oid']}"}} for it in wanted]
                objects = [it | {"actions": action} for it, action in zip(wanted, actions, strict=True)]
                return self.reply(200, {"transfer": "basic", "objects": objects})
            repo = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            self.commit(hub.files.setdefault(repo, {}), [json.loads(line) for line in body.splitlines()])
            return self.reply(200, {"commitUrl": f"{hub.url}/{repo}/commit/1", "commitOid": "1"})

        def commit(self, files, lines):
            for line in lines:
                value = line["value"]
                if line["key"] == "header":
                    hub.commits.append(value["summary"])
                elif line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                else:
                    files[value["path"]] = hub.large[value["oid"]]

        def reply(self, status, body):
            self.respond(status, json.dumps(body).encode(), {"Content-Type": "application/json"})

    with serving(Handler) as hub.url:
        yield hub
