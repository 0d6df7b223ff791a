"""A chat template taken apart: what it writes around the texts of a row, found once for all rows of one shape.

Only for a template that writes texts as they are. Whether it does is not guessed: it is rendered with texts that can be written and joined
to others, but not looked at. A template that trims a text, compares it or asks for its length fails, and is applied to every row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from transformers.utils import chat_template_utils

STATEMENTS = (nodes.Output, nodes.For, nodes.If, nodes.Assign, nodes.Break, nodes.Continue)
"""None of these keeps what was written for an expression to work on. A macro or a block does."""
GENERATION = "_generation_support"
"""Of `{% generation %}` in transformers: it writes what is inside."""
CHANGING = ("strftime_now", "random")
"""Names of what differs from call to call."""


class Looked(Exception):
    """A template did something else with a text than writing it."""


class _Unseen:
    """A text that a template may write or join to others, and nothing else."""

    def __init__(self, parts: tuple[str, ...]):
        self.parts = parts

    def __add__(self, other: Any) -> _Unseen:
        return _Unseen((*self.parts, *_parts(other)))

    def __radd__(self, other: Any) -> _Unseen:
        return _Unseen((*_parts(other), *self.parts))

    def _looked(self, *_: Any) -> NoReturn:
        raise Looked

    # Else Python would answer for an object in general, or a filter of Jinja would take a TypeError as an answer.
    __str__ = __repr__ = __format__ = __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = _looked
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _looked
    __int__ = __float__ = __index__ = __mul__ = __rmul__ = __mod__ = __rmod__ = _looked


def _parts(text: Any) -> tuple[str, ...]:
    if isinstance(text, _Unseen):
        return text.parts
    if isinstance(text, str):
        return (text,)
    raise Looked


def around(template: str, turns: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> list[str] | None:
    """What a template writes before, between and behind the texts of `turns`, each written once, in their order.

    None of a template that does not write every text once, as it is. `variables` are those that the template is rendered with, beside
    the turns.
    """
    marks: list[str] = []
    hidden = [{**turn, "content": [_hidden(part, marks) for part in turn["content"]]} for turn in turns]
    try:
        compiled = _compiled(template)
        if compiled is None:
            return None
        rest = compiled.render(messages=hidden, tools=None, documents=None, **variables)
    except (Looked, AttributeError, TypeError, ValueError, jinja2.TemplateError):
        return None
    pieces = []
    for mark in marks:
        if rest.count(mark) != 1 or any(other in rest.partition(mark)[0] for other in marks):
            return None
        piece, _, rest = rest.partition(mark)
        pieces.append(piece)
    return [*pieces, rest]


@lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template | None:
    """A template that writes unseen texts too; None of one that does not only write. Kept: every shape of rows asks for it."""
    environment = chat_template_utils._compile_jinja_template(template).environment.overlay(finalize=_shown)
    return environment.from_string(template) if _writes_only(environment.parse(template)) else None


def _hidden(part: Mapping[str, Any], marks: list[str]) -> dict[str, Any]:
    """A part of a turn, its text unseen: what is written in its place is a new mark."""
    if part["type"] != "text":
        return dict(part)
    marks.append(f"\ue000{len(marks)}\ue001")  # of Unicode's private use
    return {**part, "text": _Unseen((marks[-1],))}


def _shown(value: Any) -> Any:
    """What Jinja writes of a value: its `finalize`."""
    return "".join(value.parts) if isinstance(value, _Unseen) else value


def _writes_only(template: nodes.Template) -> bool:
    """Whether all that is written is part of the result at once, and the same at every call."""

    def plain(statement: nodes.Stmt) -> bool:
        if isinstance(statement, nodes.CallBlock):
            return getattr(statement.call.node, "name", None) == GENERATION
        return type(statement) in STATEMENTS and not getattr(statement, "recursive", False)

    named = {getattr(node, "name", None) for node in template.find_all((nodes.Name, nodes.Filter))}
    return all(map(plain, template.find_all(nodes.Stmt))) and not named.intersection(CHANGING)
