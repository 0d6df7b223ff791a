"""Checks that painters share: settings without an effect, and images that show nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import MISSING, fields

from PIL import Image

from align.errors import UserError
from align.settings import PainterSettings


def refuse_unused(settings: PainterSettings, name: str, keys: Collection[str], why: str) -> None:
    """Raise UserError if one of these settings is not its default; `why` says why it has no effect,
    and what to give.
    """
    for field in fields(settings):
        factory = field.default_factory
        default = factory() if factory is not MISSING else field.default
        if field.name in keys and getattr(settings, field.name) != default:
            raise UserError(f"{name}.{field.name}={getattr(settings, field.name)}: {why}")


def is_black(image: Image.Image) -> bool:
    """Whether every pixel is black: safety checkers return this, and so does arithmetic that overflowed."""
    return image.convert("RGB").getbbox() is None
