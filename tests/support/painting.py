"""Painters of tests, their jobs, and what they painted."""

import io

import numpy as np
from PIL import Image

from align.answering.conversation import Failure
from align.construction.painters.build import build_painter
from align.construction.painters.painter import Painted, Painting
from align.data.images import encode_png
from align.settings import PainterSettings


class _Diffusers:
    """diffusers, imported when it is first used: that takes longer than most tests."""

    def __getattr__(self, name):
        import diffusers

        return getattr(diffusers, name)


diffusers = _Diffusers()
ROUNDING = 1
"""A batch's matrices are summed in another order than one image's: float32 differs by 1e-6, and a
pixel by one level at most.
"""


def painter(path, **settings):
    return build_painter("painter", PainterSettings(**{"path": path, "steps": 1, "guidance": 1.0} | settings))


def jobs(count, *images):
    """Jobs with different prompts and seeds, and these images."""
    given = images or [None] * count
    return [Painting(f"{i}", f"a cat {'or more ' * i}{i}", 100 + i, image) for i, image in enumerate(given)]


def striped(width=16, height=16, level=200):
    image = Image.new("RGB", (width, height), (level, 20, 60))
    image.paste((10, 160, level // 2), (width // 2, 0, width, height))
    return encode_png(image)


def pixels(found):
    """{id: pixels} of finished images."""
    found = list(found)
    assert all(isinstance(one, Painted) for one in found), found
    opened = {one.id: Image.open(io.BytesIO(one.png)) for one in found}
    assert {(image.format, image.mode) for image in opened.values()} == {("PNG", "RGB")}
    return {name: np.asarray(image).astype(int) for name, image in opened.items()}


def reasons(found):
    return {one.id: one.reason if isinstance(one, Failure) else "painted" for one in found}


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for name, image in left.items():
        assert image.shape == right[name].shape
        assert np.abs(image - right[name]).max() <= ROUNDING, name
