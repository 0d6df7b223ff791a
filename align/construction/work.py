"""Items of one step in progress: calls to roles and painters, and what becomes of each item."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from align.answering.conversation import Failure, Reply
from align.console import Display, shortened
from align.construction.item import DROPPED, FAILED, KEPT, REFUSED, UNPARSABLE, Item, Outcome
from align.construction.painters.painter import Painted, Painter, Painting
from align.construction.roles.reading import Unread, is_refusal
from align.construction.roles.role import Call, Role
from align.rows import ImageRef
from align.settings import ConstructConfig

Value = TypeVar("Value")
SEEDS = 2**31
"""Seeds are below this: the range that all libraries accept."""


@dataclass
class Tools:
    """What all steps share."""

    config: ConstructConfig
    roles: Mapping[str, Role]
    painters: Mapping[str, Painter]
    folder: Path
    """The output folder; images of items are relative to it."""
    display: Display


class Work:
    """Some items of a step, until each of them is kept, dropped, refused, unparsable or failed."""

    def __init__(self, step: str, items: Sequence[Item], tools: Tools, images: Path):
        """`images` is the folder for images of this step."""
        self.step, self.tools, self.images = step, tools, images
        self.items = {item.id: item for item in items}
        self.outcomes: dict[str, Outcome] = {}
        self._calls: dict[str, list[dict[str, Any]]] = {item.id: [] for item in items}
        self._counts: dict[str, Counter[str]] = {item.id: Counter() for item in items}

    @property
    def config(self) -> ConstructConfig:
        """The settings of the construction."""
        return self.tools.config

    @property
    def open(self) -> list[Item]:
        """Items without an outcome."""
        return [item for item in self.items.values() if item.id not in self.outcomes]

    def keep(self, item_id: str, *made: Item) -> None:
        """End an item: `made` are the items that leave the step."""
        self._end(item_id, KEPT, None, None, made)

    def drop(self, item_id: str, reason: str, detail: str = "") -> None:
        """End an item that is not wanted; the funnel counts the reason."""
        self._end(item_id, DROPPED, reason, detail or None)

    def count(self, item_id: str, **numbers: int) -> None:
        """Add to the item's counts of what was tried."""
        self._counts[item_id].update(numbers)

    def seed(self, item_id: str, attempt: int = 1) -> int:
        """The seed of an item's attempt in this step; it does not depend on other items."""
        told = f"{self.config.seed} {self.step} {item_id} {attempt}"
        return int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "big") % SEEDS

    def image(self, path: str | None) -> tuple[ImageRef, ...]:
        """The image at a path of an item."""
        return (ImageRef(path=str(self.tools.folder / path)),) if path else ()

    def ask(
        self,
        role: str,
        prompt: str,
        values: Callable[[Item], Mapping[str, str | None]],
        read: Callable[[str], Value],
        of: Iterable[Item] | None = None,
        images: Callable[[Item], tuple[ImageRef, ...]] = lambda item: (),
        attempt: int = 1,
        refusal_is_reply: bool = False,
    ) -> dict[str, Value]:
        """Call a role about items (default: all open ones) -> {item id: what was read from its reply}.

        An item whose role refuses, fails or gives another form is ended here. `refusal_is_reply`: a refusal is a
        legitimate reply.
        """
        items = {item.id: item for item in (self.open if of is None else of)}
        calls = {}
        for item in items.values():
            given = {key: value or "" for key, value in values(item).items()}
            name = f"{item.id}#{prompt}{attempt}"
            calls[name] = Call(name, prompt, given, images(item), self.seed(f"{item.id} {role} {prompt}", attempt))
        found: dict[str, Value] = {}
        for reply in self.tools.roles[role].replies(list(calls.values())) if calls else ():
            item_id = reply.id.rpartition("#")[0]
            if isinstance(reply, Failure):
                self._fail(item_id, role, reply)
                continue
            self._calls[item_id].append(_spent(role, reply))
            value = self._read(item_id, role, reply, read, refusal_is_reply)
            if value is not None:
                found[item_id] = value
        return {item_id: found[item_id] for item_id in items if item_id in found}

    def paint(self, painter: str, jobs: Mapping[str, tuple[str, str | None]], round_: int) -> dict[str, str]:
        """{item id: (prompt, image to edit or None)} -> {item id: path of the new image}.

        An image that a killed command has already stored is counted, and not painted again.
        """
        paths = {item_id: self.images / f"{item_id}-{painter}-{round_}.png" for item_id in jobs}
        missing = [item_id for item_id, path in paths.items() if not path.is_file()]
        found = {item_id for item_id in jobs if item_id not in missing}
        for item_id in found:  # it was painted once; how long that took is lost with the process
            self._calls[item_id].append({"role": painter, "seconds": 0.0})
        paintings = [
            Painting(
                item_id, jobs[item_id][0], self.seed(item_id, round_), next(iter(self.image(jobs[item_id][1])), None)
            )
            for item_id in missing
        ]
        for result in self.tools.painters[painter].paint(paintings) if paintings else ():
            if isinstance(result, Painted):
                write_image(paths[result.id], result.png)
                self._calls[result.id].append({"role": painter, "seconds": round(result.seconds, 3)})
                found.add(result.id)
            else:
                self._fail(result.id, painter, result)
        return {
            item_id: str(path.relative_to(self.tools.folder)) for item_id, path in paths.items() if item_id in found
        }

    def _read(
        self, item_id: str, role: str, reply: Reply, read: Callable[[str], Value], refusal_is_reply: bool
    ) -> Value | None:
        """What a reply says; an item whose reply says nothing is ended."""
        said = shortened(reply.text)
        if reply.refused and not refusal_is_reply:
            self._end(item_id, REFUSED, role, said)
        elif reply.finish_reason == "length":
            self._end(item_id, UNPARSABLE, f"{role}_truncated", f"the reply was {said}")
        else:
            try:
                return read(reply.text)
            except Unread as error:
                # A refusal has another form, too, but another cause: the model declines.
                refused = is_refusal(reply.text) and not refusal_is_reply
                self._end(item_id, REFUSED if refused else UNPARSABLE, role, said if refused else f"{error}: {said}")
        return None

    def _fail(self, item_id: str, role: str, failure: Failure) -> None:
        if failure.reason == "declined":  # the server's filter: a refusal that is not the model's own
            self._end(item_id, REFUSED, role, failure.detail)
        else:
            self._end(item_id, FAILED, f"{role}_{failure.reason}", f"{failure.detail}; {failure.help}".rstrip("; "))

    def _end(
        self, item_id: str, status: str, reason: str | None, detail: str | None, made: Sequence[Item] = ()
    ) -> None:
        counts = dict(sorted(self._counts[item_id].items()))
        self.outcomes[item_id] = Outcome(
            item_id, status, reason, detail, tuple(made), counts, tuple(self._calls[item_id])
        )


def plain_text(read: Callable[[str], str]) -> Callable[[str], str]:
    """A reader of plain texts for which a refusal is not a text: `ask` then counts it as a refusal."""

    def reader(reply: str) -> str:
        if is_refusal(reply):
            raise Unread("a refusal")
        return read(reply)

    return reader


def write_image(path: Path, content: bytes) -> None:
    """Write an image so that a kill leaves the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(content)
    draft.replace(path)


def _spent(role: str, reply: Reply) -> dict[str, Any]:
    return {
        "role": role,
        "prompt_tokens": reply.prompt_tokens,
        "new_tokens": reply.new_tokens,
        "seconds": round(reply.seconds, 3),
    }
