"""Instruction data as conversations: LLaVA-Instruct, ShareGPT4V and other data in ShareGPT's format.

{id, image?, conversations: [{from: human | gpt, value}, ...]}, with "<image>" inside the first request.
A row is the first exchange of a conversation. Later turns depend on it, so they are dropped and counted.
"""

from __future__ import annotations

from align.data.files.folder import DataFolder
from align.data.files.records import Record
from align.data.files.unread import UnreadImages
from align.data.reading import Read, UniqueIds, check_subset
from align.errors import UserError
from align.rows import Row
from align.settings import Part

MARK = "<image>"
ROLES = {"human": "request", "user": "request", "gpt": "answer", "assistant": "answer", "system": "system"}


def read(part: Part) -> Read:
    """The source `conversations`: the first exchange of each conversation. Raises UserError that names file and row."""
    check_subset("source=conversations", part.subset, ())
    folder = DataFolder.open("source=conversations", part)
    unique, rows, longer, silent = UniqueIds(), [], 0, 0
    unread = UnreadImages(("id", "image", "conversations"))
    for number, record in enumerate(folder.records("*.json", "*.jsonl", "*.parquet", "data/*.parquet"), start=1):
        unread.see(record)
        turns = record.records("conversations")
        request, answer = _first(record, turns)
        images = folder.cells(record, "image")
        if request.count(MARK) > len(images):
            raise UserError(
                f"{record.where}: the first request has {request.count(MARK)} {MARK}, but `image` has {len(images)} "
                "images; correct one of the two"
            )
        if not request.replace(MARK, "").strip():
            silent += 1
            continue
        longer += len(turns) > 2
        rows.append(
            Row(
                id=unique(record.name("id") if record.get("id") not in (None, "") else f"{folder.name}-{number}"),
                prompt=request.replace(MARK, "").strip(),
                images=images,
                response=answer,
                role=part.role or "benign",
                harm_in="none" if part.role != "harmful" else "image" if images else "text",
                source=folder.name,
                cluster=images[0].name if images else None,
            )
        )
    facts = (
        [f"{longer} of {len(rows)} conversations have turns after the first exchange, which are dropped"]
        if longer
        else []
    )
    facts += [f"{silent} conversations dropped whose first request has no words"] if silent else []
    if not rows:
        raise UserError(f"source=conversations: no rows; {'; '.join(facts)}")
    return Read(rows, facts, unread.told)


def _first(record: Record, turns: list[Record]) -> tuple[str, str]:
    """The first request and its response. Raises UserError if the conversation does not begin with them."""
    roles = [ROLES.get(turn.text("from"), turn.text("from")) for turn in turns[:2]]
    if roles != ["request", "answer"]:
        found = ", ".join(turn.text("from")[:80] for turn in turns[:2]) or "nothing"
        raise UserError(f"{record.where}: `conversations` begins with {found}; expected human, gpt")
    return turns[0].text("value"), turns[1].text("value")
