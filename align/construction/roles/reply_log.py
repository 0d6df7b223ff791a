"""Replies on disk: a reply is paid for once, even if the command is killed before its item is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from align.answering.conversation import Failure, Reply
from align.construction.roles.chat import ChatRole
from align.construction.roles.role import Call
from align.data.images import pixel_hash
from align.errors import UserError
from align.files import append_jsonl, open_jsonl


class LoggedRole:
    """A chat role whose replies are appended to a file, and read from it when a call is repeated."""

    def __init__(self, role: ChatRole, folder: Path):
        self.name, self.identity, self._role = role.name, role.identity, role
        self.path = folder / f"{role.name}.jsonl"
        self._known: dict[str, dict[str, Any]] | None = None

    def replies(self, calls: Sequence[Call]) -> Iterator[Reply | Failure]:
        """One reply or failure per call, known replies first. Failures are not stored."""
        kept, file = open_jsonl(self.path)
        if self._known is None:
            self._known = {record["key"]: record for record in kept}
        with file:
            keys = {call.id: self._key(call) for call in calls}
            missing = []
            for call in calls:
                if keys[call.id] in self._known:
                    yield _reply(call.id, self._known[keys[call.id]])
                else:
                    missing.append(call)
            for found in self._role.replies(missing) if missing else ():
                if isinstance(found, Reply):
                    record = {"key": keys[found.id], **asdict(found)}
                    append_jsonl(file, record)
                    self._known[keys[found.id]] = record
                yield found

    def usage(self) -> str:
        """Calls, tokens and cost so far in this command."""
        return self._role.usage()

    def forecast(self, calls: int, images: int) -> str:
        """The maximum usage of a number of calls."""
        return self._role.forecast(calls, images)

    def release(self) -> None:
        """Free the model."""
        self._role.release()

    def _key(self, call: Call) -> str:
        request = self._role.request(call)
        try:
            pixels = [pixel_hash(image, "") for image in call.images]
        except UserError:
            pixels = ["unreadable"]  # the request fails, and failures are not stored
        drawn = call.seed if self.identity.get("temperature") else None  # another seed= asks for other draws
        told = json.dumps(
            [self.identity, call.id, drawn, [turn.text for turn in request.turns], pixels], sort_keys=True
        )
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _reply(call_id: str, record: dict[str, Any]) -> Reply:
    return Reply(**({field.name: record[field.name] for field in fields(Reply)} | {"id": call_id}))
