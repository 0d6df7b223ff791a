"""Build a painter from its settings."""

from __future__ import annotations

from align.construction.painters.function import FunctionPainter
from align.construction.painters.painter import Painter
from align.construction.roles.build import function_of
from align.errors import UserError
from align.settings import PainterSettings


def build_painter(name: str, settings: PainterSettings) -> Painter:
    """The painter of a section: a function, an endpoint or a diffusers pipeline; nothing is loaded yet.

    Raises UserError for none or several of them, and for invalid settings.
    """
    given = [key for key in ("use", "base_url", "path") if getattr(settings, key) is not None]
    if len(given) != 1:
        raise UserError(
            f"{name}: {' and '.join(f'{name}.{key}=' for key in given) or 'no model'} given; give one of {name}.path= "
            "(a "
            f"diffusers pipeline), {name}.base_url= with {name}.model= (an OpenAI-compatible images endpoint), or "
            f"{name}.use=module:function"
        )
    if settings.use is not None:
        return FunctionPainter(name, settings.use, function_of(f"{name}.use", settings.use))
    if settings.base_url is not None:
        from align.construction.painters.images_endpoint import ImagesEndpoint

        return ImagesEndpoint(name, settings)
    from align.construction.painters.diffusion import DiffusionPainter

    return DiffusionPainter(name, settings)
