"""The data card of a construction: README.md in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def card(
    facts: dict[str, Any], counted: dict[str, Any], certificate: dict[str, Any] | None, written: Sequence[str]
) -> str:
    """The card as Markdown: what the set is, how it was made, its funnel, certificate, models and licences."""
    return ""
