"""A defence that is only a prompt: texts before and after the request, and a system turn."""

from __future__ import annotations

from dataclasses import dataclass, replace

from align.defences.defence import Defence
from align.rows import Row, Turn


@dataclass(frozen=True)
class Template(Defence):
    """Text around the request, each on lines of its own; one call."""

    name: str
    before: str = ""
    after: str = ""
    system: str = ""
    """A system turn. It replaces `model.system_prompt`, and precedes the text of a row's own system turn."""

    @property
    def texts(self) -> tuple[str, ...]:  # type: ignore[override]
        """Its three places."""
        return (self.before, self.after, self.system)

    @property
    def prompt_says_all(self) -> bool:
        """True: the model's prompt contains the whole defence."""
        return True

    def applied(self, row: Row) -> Row:
        """The row with the template's texts around its request."""
        if self.before:
            row = row.with_text_before(self.before)
        if self.after:
            row = replace(row, prompt=f"{row.prompt}\n{self.after}")
        return _with_system(row, self.system) if self.system else row


def _with_system(row: Row, text: str) -> Row:
    first, *rest = row.history or (None,)
    if first is None or first.role != "system":
        return replace(row, history=(Turn("system", text), *row.history))
    offset = len(text) + 1
    own = replace(first, text=f"{text}\n{first.text}", places=tuple(place + offset for place in first.places))
    return replace(row, history=(own, *rest))
