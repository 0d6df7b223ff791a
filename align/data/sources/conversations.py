"""Conversations of several turns: LLaVA-Instruct, ShareGPT4V, and `messages` of trl, ms-swift and
LLaMA-Factory (align/data/conversation.py has the forms).

A row is the last request with its response and all turns before it. Supervised fine-tuning trains
on every response (`turns=all`) or on the last one (`turns=last`); other methods on the last one.
"""

from __future__ import annotations

from dataclasses import dataclass

from align.data.conversation import LISTS, Conversation, conversation_of, is_conversation
from align.data.files.folder import DataFolder, DataLocation
from align.data.files.records import Record
from align.data.files.unread import UnreadImages
from align.data.hints import option
from align.data.reading import Read, UniqueIds, check_subset
from align.errors import UserError
from align.rows import ImageRef, Row
from align.settings import Part

COLUMNS = (*LISTS, "id", "image", "images", "system", "prompt", "completion", "chosen", "rejected")


@dataclass
class Conversations:
    """The conversations of a file."""

    name: str
    found: list[tuple[str, Record, Conversation, tuple[ImageRef, ...]]]
    """(Id, record, conversation, images)"""
    facts: list[str]
    unread_images: str | None


def read(part: Part) -> Read:
    """The source `conversations`: one row per conversation. Raises UserError that names file and row."""
    check_subset("source=conversations", part.subset, ())
    if part.turns not in ("all", "last"):
        raise UserError(f"source=conversations: {option(f'turns={part.turns}')}: expected all or last")
    file = read_file("source=conversations", part, trained=part.turns == "all")
    several = sum(any(turn.role == "assistant" for turn in one.history) for _, _, one, _ in file.found)
    if several:
        fact = f"{several} of {len(file.found)} conversations have several exchanges (turns={part.turns})"
        file.facts.insert(0, fact)
    rows = [
        row_of(conversation, images, row_id, file.name, part.role) for row_id, _, conversation, images in file.found
    ]
    return Read(rows, file.facts, file.unread_images)


def read_file(what: str, where: DataLocation, trained: bool) -> Conversations:
    """The conversations of a file; `trained` marks their earlier responses. Raises UserError."""
    folder = DataFolder.open(what, where)
    unique, unread, found, silent = UniqueIds(), UnreadImages(COLUMNS), [], 0
    for number, record in enumerate(folder.rows(), start=1):
        unread.see(record)
        if not is_conversation(record):
            raise UserError(
                f"{record.where}: no list of turns in {', '.join(LISTS)}; found the columns {', '.join(record)}"
            )
        images = folder.cells(record, "images") or folder.cells(record, "image")
        conversation = conversation_of(record, len(images), trained)
        if not conversation.request.text:
            silent += 1
            continue
        name = record.name("id") if record.get("id") not in (None, "") else f"{folder.name}-{number}"
        found.append((unique(name), record, conversation, images))
    model_first = sum(conversation.model_first for _, _, conversation, _ in found)
    facts = [f"{model_first} conversations begin with a turn of the model, which is left out"] if model_first else []
    facts += [f"{silent} conversations left out whose last request has no words"] if silent else []
    if not found:
        raise UserError(f"{what}: no rows; {'; '.join(facts)}")
    return Conversations(folder.name, found, facts, unread.told)


def row_of(of: Conversation, images: tuple[ImageRef, ...], row_id: str, source: str, role: str | None) -> Row:
    """The row of a conversation: its last request."""
    return Row(
        id=row_id,
        prompt=of.request.text,
        images=images,
        response=of.response if of.chosen is None else of.chosen,
        chosen=of.chosen or (of.response if of.rejected else None),
        rejected=of.rejected,
        role=role or "benign",
        harm_in="none" if role != "harmful" else "image" if images else "text",
        source=source,
        cluster=images[0].name if images else None,
        history=of.history,
        places=of.request.places,
    )
