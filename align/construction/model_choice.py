"""Which one a role or a painter is: a function, a model behind an endpoint, or a model loaded or served here."""

from __future__ import annotations

from typing import Any

from align.config.registry import resolve
from align.errors import UserError
from align.settings import PainterSettings, RoleSettings

CHOICES = ("use", "base_url", "path", "serve")


def check_one(settings: RoleSettings | PainterSettings, whose: str, section: str, local: str, remote: str) -> None:
    """Raise UserError unless exactly one is given; `local` and `remote` say what path= and base_url= name."""
    given = [key for key in CHOICES if getattr(settings, key, None) is not None]
    if len(given) != 1:
        found = " and ".join(f"{section}.{key}=" for key in given) or "no model"
        raise UserError(
            f"{whose}: {found} given; give one of {section}.base_url= with {section}.model= ({remote}), {section}.path= "
            f"({local}) or {section}.use=module:function"
        )


def function_of(key: str, use: str) -> Any:
    """The function at `module:name`. Raises UserError if it is not callable."""
    found = resolve(key, use)
    if not callable(found):
        raise UserError(f"{key}={use}: expected a function, found {type(found).__name__}")
    return found
