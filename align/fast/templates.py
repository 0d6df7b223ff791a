"""Split a chat template into the pieces that it writes around a row's texts, once per row shape.

This works only for a template that writes texts unchanged. To find out, the template is rendered
with placeholder texts that can be written and joined to others, but not inspected. A template that
trims a text, compares it or reads its length fails, and is then applied to every row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from transformers.utils import chat_template_utils

STATEMENTS = (nodes.Output, nodes.For, nodes.If, nodes.Assign, nodes.Break, nodes.Continue)
"""Statements that write their output at once. A macro or a block keeps it, so an expression
could change it."""
GENERATION = "_generation_support"
"""The name of `{% generation %}` in transformers, which writes its content unchanged."""
CHANGING = ("strftime_now", "random")
"""Functions and filters whose result differs from call to call."""


class Looked(Exception):
    """Raised when a template does anything other than write a text."""


class _Unseen:
    """A placeholder text that a template can only write or join to others."""

    def __init__(self, parts: tuple[str, ...]):
        self.parts = parts

    def __add__(self, other: Any) -> _Unseen:
        return _Unseen((*self.parts, *_parts(other)))

    def __radd__(self, other: Any) -> _Unseen:
        return _Unseen((*_parts(other), *self.parts))

    def _looked(self, *_: Any) -> NoReturn:
        raise Looked

    # Otherwise Python's defaults for any object would apply, or a Jinja filter would catch a
    # TypeError and continue.
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
    """The pieces that a template writes before, between and after the texts of `turns`, in order.

    None if the template does not write every text exactly once and unchanged. `variables` are
    passed to the template in addition to the turns.
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
    """A compiled template that can write placeholder texts; None if it may change what it writes.

    The result is cached, because it is used for every shape of rows.
    """
    environment = chat_template_utils._compile_jinja_template(template).environment.overlay(finalize=_shown)
    return environment.from_string(template) if _writes_only(environment.parse(template)) else None


def _hidden(part: Mapping[str, Any], marks: list[str]) -> dict[str, Any]:
    """A part of a turn with its text replaced by a placeholder, which is written as a new mark."""
    if part["type"] != "text":
        return dict(part)
    marks.append(f"\ue000{len(marks)}\ue001")  # characters of Unicode's private use area
    return {**part, "text": _Unseen((marks[-1],))}


def _shown(value: Any) -> Any:
    """The text that Jinja writes for a value (its `finalize`)."""
    return "".join(value.parts) if isinstance(value, _Unseen) else value


def _writes_only(template: nodes.Template) -> bool:
    """Whether a template writes its output directly, and the same output at every call."""

    def plain(statement: nodes.Stmt) -> bool:
        if isinstance(statement, nodes.CallBlock):
            return getattr(statement.call.node, "name", None) == GENERATION
        return type(statement) in STATEMENTS and not getattr(statement, "recursive", False)

    named = {getattr(node, "name", None) for node in template.find_all((nodes.Name, nodes.Filter))}
    return all(map(plain, template.find_all(nodes.Stmt))) and not named.intersection(CHANGING)
