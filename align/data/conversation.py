"""Conversations of several turns in the forms that people write -> the turns of a row.

| form | a turn | images |
|---|---|---|
| `messages` (trl, ms-swift, LLaMA-Factory) | {role, content}; content is text, or a list of {type: text | image} | `images` |
| `conversations` (ShareGPT, LLaVA) | {from, value} | `image` or `images` |
| `prompt`, `completion` or `chosen`, `rejected` as lists of messages (trl) | {role, content} | `images` |

An image stands where its text has "<image>", or a part of type image. Without either, images stand
before the first request. A column `system` is a turn before all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from align.data.files.records import Record
from align.errors import UserError
from align.rows import Turn

MARK = "<image>"
ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant"}
"""Names of roles in data -> ours; `user`, `assistant` and `system` are the same."""
LISTS = ("messages", "conversations", "conversation")
"""Columns that hold a conversation."""


@dataclass(frozen=True)
class Conversation:
    """A conversation: the turns before its last request, that request, and its responses."""

    history: tuple[Turn, ...]
    request: Turn
    response: str | None
    chosen: str | None = None
    rejected: str | None = None
    model_first: bool = False
    """Whether it began with a turn of the model, which is left out."""


def is_conversation(record: Record) -> bool:
    """Whether a record holds a conversation in one of the forms."""
    return any(isinstance(record.get(column), list) for column in (*LISTS, "prompt", "chosen"))


def conversation_of(record: Record, images: int, trained: bool) -> Conversation:
    """The conversation of a record that has so many images; `trained` marks its earlier responses.

    Raises UserError that names file, row and turn.
    """
    column = next((column for column in LISTS if isinstance(record.get(column), list)), None)
    turns = _turns(record, column) if column else _turns(record, "prompt") if record.get("prompt") else []
    answers = {name: _answer(record, name) for name in ("completion", "chosen", "rejected")}
    if not turns and answers["chosen"]:  # trl: the prompt is what both have in common
        turns = _common(answers["chosen"], answers["rejected"])
        answers = {name: of and of[len(turns) :] for name, of in answers.items()}
    if (system := record.optional("system")) and not any(turn.role == "system" for turn in turns):
        turns = [Turn("system", system), *turns]
    if answers["completion"] or (turns and turns[-1].role == "assistant" and not answers["chosen"]):
        turns = [*turns, *(answers["completion"] or [])]
        *turns, last = turns
        response: str | None = last.text
    else:
        response = None
    turns, model_first = _checked(record, turns)
    turns = _placed(record, turns, images)
    history = tuple(replace(turn, trained=trained and turn.role == "assistant") for turn in turns[:-1])
    chosen, rejected = (_only(record, name, answers[name]) for name in ("chosen", "rejected"))
    rejected = rejected or record.optional("rejected_response")
    return Conversation(history, turns[-1], response, chosen, rejected, model_first)


def _turns(record: Record, column: str) -> list[Turn]:
    if not isinstance(record.get(column), list):
        raise UserError(
            f"{record.where}: `{column}` is not a list of turns, but `chosen` is; make both lists, or both text"
        )
    return [_turn(one) for one in record.records(column)]


def _turn(one: Record) -> Turn:
    """A turn in either form. Raises UserError for an unknown role."""
    name = one.text("from" if "from" in one else "role")
    role = ROLES.get(name.lower(), name.lower())
    if role not in ("system", "user", "assistant"):
        raise UserError(
            f"{one.where}: role {name!r}; expected system, user (human) or assistant (gpt). Turns of tools are not read"
        )
    key = "value" if "value" in one else "content"
    if not isinstance(one.get(key), list):
        return _marked(role, one.text(key, empty=True))
    text, places = "", list[int]()
    for part in one.records(key):
        kind = part.text("type")
        if kind not in ("text", "image", "image_url"):
            raise UserError(f"{part.where}: a part of type {kind!r}; expected text or image")
        if kind == "text":
            text += part.text("text", empty=True)
        else:
            places.append(len(text))
    return _stripped(Turn(role, text, tuple(places)))


def _marked(role: str, text: str) -> Turn:
    """A turn whose text has a mark for each image."""
    pieces = text.split(MARK) if role == "user" else [text]
    places, whole = list[int](), pieces[0]
    for piece in pieces[1:]:
        places.append(len(whole))
        whole += piece
    return _stripped(Turn(role, whole, tuple(places)))


def _stripped(turn: Turn) -> Turn:
    """A turn without white space around its text."""
    text = turn.text.strip()
    gone = len(turn.text) - len(turn.text.lstrip())
    return replace(turn, text=text, places=tuple(min(max(place - gone, 0), len(text)) for place in turn.places))


def _checked(record: Record, turns: list[Turn]) -> tuple[list[Turn], bool]:
    """(Turns that begin and end with a request and alternate, whether a first turn of the model is left out).

    Raises UserError.
    """
    spoken = [turn for turn in turns if turn.role != "system"]
    if not spoken or spoken[-1].role != "user":
        raise UserError(
            f"{record.where}: the conversation has no request before its last response; add one, or remove the row"
        )
    if any(turn.role == "system" for turn in turns[1:]):
        raise UserError(f"{record.where}: a system turn after the beginning; move it to the beginning, or remove it")
    model_first = spoken[0].role == "assistant"  # ShareGPT has conversations that begin in the middle
    if model_first:
        first = turns.index(spoken[0])
        turns, spoken = [*turns[:first], *turns[first + 1 :]], spoken[1:]
    for number, (one, other) in enumerate(pairwise(spoken), start=1):
        if one.role == other.role:
            raise UserError(
                f"{record.where}: turns {number} and {number + 1} are both of the {one.role}; join them, or add the turn "
                "between them"
            )
    return turns, model_first


def _placed(record: Record, turns: Sequence[Turn], images: int) -> list[Turn]:
    """The same turns with a place for every image. Raises UserError if marks and images differ in number."""
    placed = sum(len(turn.places) for turn in turns)
    if placed == 0 and images:
        first = next(i for i, turn in enumerate(turns) if turn.role == "user")
        turns = [*turns[:first], replace(turns[first], places=(0,) * images), *turns[first + 1 :]]
    elif placed != images:
        raise UserError(
            f"{record.where}: the conversation has {placed} places for images ({MARK} or parts of type image), and the row "
            f"has {images} images; correct one of the two"
        )
    return list(turns)


def _answer(record: Record, column: str) -> list[Turn] | None:
    """The turns of an answer; an answer may also be one turn, or text."""
    value = record.get(column)
    if value in (None, "", []):
        return None
    if isinstance(value, str):
        return [Turn("assistant", value)]
    if isinstance(value, dict):
        return [_turn(Record(value, record.file, f"{record.where}, `{column}`", record.key))]
    return _turns(record, column)


def _common(chosen: Sequence[Turn], rejected: Sequence[Turn] | None) -> list[Turn]:
    """The turns that two conversations begin with."""
    common = []
    for one, other in zip(chosen, rejected or (), strict=False):
        if one != other:
            break
        common.append(one)
    return common


def _only(record: Record, column: str, turns: Sequence[Turn] | None) -> str | None:
    """The text of an answer, which must be one turn of the assistant. Raises UserError."""
    if turns is None:
        return None
    if [turn.role for turn in turns] != ["assistant"]:
        found = ", ".join(turn.role for turn in turns) or "nothing"
        raise UserError(
            f"{record.where}: `{column}` has the turns {found} after the prompt; expected one of the assistant"
        )
    return turns[0].text
