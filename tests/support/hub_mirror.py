"""A server on the loopback that speaks what downloading a model or a data set needs of the hub's
API, and keeps what it was asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.support.loopback import QuietHandler, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubServer:
    """Repositories by name, each a folder of one commit; `gated` ones are refused."""

    repositories: dict[str, Path]
    gated: set[str] = field(default_factory=set)
    url: str = ""
    downloaded: list[str] = field(default_factory=list)
    """Names of the files whose content was asked for."""


@contextmanager
def hub_server(repositories: dict[str, Path], gated: set[str] = frozenset()) -> Iterator[HubServer]:
    """A running server; its thread and sockets end with the block."""
    state = HubServer(repositories, set(gated))

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.answer(with_body=False)

        def do_GET(self):
            self.answer(with_body=True)

        def answer(self, with_body):
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts[0] == "datasets":
                parts = parts[1:]
            if parts[:2] in (["api", "models"], ["api", "datasets"]):
                name, what, revision = "/".join(parts[2:4]), *(parts[4:6] or ["revision", "main"])
            else:
                name, what, revision = "/".join(parts[:2]), parts[2], parts[3]
            folder = state.repositories.get(name)
            if folder is None:
                return self.refuse(404, "RepoNotFound")
            if name in state.gated:
                return self.refuse(403, "GatedRepo")
            if revision not in ("main", COMMIT):
                return self.refuse(404, "RevisionNotFound")
            if what == "revision":
                files = [{"rfilename": file["path"]} for file in tree(folder)]
                return self.send_object({"id": name, "modelId": name, "sha": COMMIT, "siblings": files, "tags": []})
            if what == "tree":
                return self.send_object(tree(folder))
            assert what == "resolve"
            file = folder / "/".join(parts[4:])
            if not file.is_file():
                return self.refuse(404, "EntryNotFound")
            if with_body:
                state.downloaded.append(str(file.relative_to(folder)))
            return self.send(200, file.read_bytes(), with_body, {"ETag": f'"{digest(file)}"'})

        def refuse(self, status, code):
            self.send(status, b"{}", self.command == "GET", {"X-Error-Code": code, "X-Error-Message": code})

        def send_object(self, value):
            self.send(200, json.dumps(value).encode(), True, {"Content-Type": "application/json"})

        def send(self, status, content, with_body, headers):
            self.respond(status, content, {"X-Repo-Commit": COMMIT, **headers}, with_body)

    with serving(Handler) as state.url:
        yield state


def tree(folder: Path) -> list[dict]:
    """Every file of a repository, as the API lists it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [
        {"type": "file", "path": str(f.relative_to(folder)), "size": f.stat().st_size, "oid": digest(f)} for f in files
    ]


def digest(file: Path) -> str:
    """A file's name by its content, of the length that git uses."""
    return hashlib.sha1(file.read_bytes()).hexdigest()
