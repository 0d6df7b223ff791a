"""Rows rendered on the plain path and on the fast one, and images for them."""

import io
import re
from functools import cache

import numpy as np
from PIL import Image

from align.batches.rendering import Renderer
from align.fast.renderer import same
from align.rows import ImageRef


def encoded(size, mode="RGB", orientation=1, kind="PNG", seed=0):
    """An image of noise, as a file's bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    tags, buffer = Image.Exif(), io.BytesIO()
    tags[274] = orientation
    Image.fromarray(pixels).convert("RGB").convert(mode).save(buffer, kind, exif=tags)
    return ImageRef(bytes=buffer.getvalue())


FEW = [encoded((40, 30)), encoded((7, 60), "L"), encoded((90, 33), "RGBA", 6)]
"""Images of some shapes and modes."""


def outcome(render, *given):
    """What a call gives, or how it is refused."""
    try:
        return render(*given)
    except Exception as error:  # also those that are nobody's fault: both paths must end alike
        return type(error), re.sub("0x[0-9a-f]+", "", str(error)), getattr(error, "kind", None)


@cache
def plain_of(fast):
    """Kept, since a tokenizer lists its whole vocabulary for each."""
    return Renderer(fast.processor, fast.family, fast.settings)


def agree(fast, row, answers, plain=None):
    """Assert that both paths give the same, or refuse the row alike."""
    plain = plain or plain_of(fast)
    expected, found = (outcome(it.render_answers, row, answers) for it in (plain, fast))
    if isinstance(expected, tuple):
        assert found == expected
    else:
        assert all(same(*pair) for pair in zip(expected, found, strict=True))
    texts = [answer for answer in answers if answer is not None]
    assert outcome(fast.measure, row, texts) == outcome(plain.measure, row, texts)
