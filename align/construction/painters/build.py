"""Build a painter from its settings."""

from __future__ import annotations

from align.construction.model_choice import check_one, function_of
from align.construction.painters.function import FunctionPainter
from align.construction.painters.painter import Painter
from align.settings import PainterSettings


def build_painter(name: str, settings: PainterSettings) -> Painter:
    """The painter of a section: a function, an endpoint or a diffusers pipeline; nothing is loaded yet.

    Raises UserError for none or several of them, and for invalid settings.
    """
    check_one(settings, name, name, "a diffusers pipeline", "an OpenAI-compatible images endpoint")
    if settings.use is not None:
        return FunctionPainter(name, settings.use, function_of(f"{name}.use", settings.use))
    if settings.base_url is not None:
        from align.construction.painters.images_endpoint import ImagesEndpoint

        return ImagesEndpoint(name, settings)
    from align.construction.painters.diffusion import DiffusionPainter

    return DiffusionPainter(name, settings)
