"""The earlier place of prompt-only defences, for modules of users that import them from here."""

from __future__ import annotations

from align.defences.safety_prompt import SAFETY_PROMPT
from align.defences.template import Template as Defence

__all__ = ["SAFETY_PROMPT", "Defence"]
