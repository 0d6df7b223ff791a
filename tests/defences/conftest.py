"""A server of replies that a test writes, and models to defend."""

import pytest
from PIL import Image

from align.answering.endpoint import Endpoint
from align.answering.local_model import LocalModel
from align.data.images import encode_png
from align.defences.model import DefendedModel
from align.models.loading import ModelSource
from align.rows import Row
from align.settings import Answering, ModelSettings

YES_NO = "Reply yes or no."


def row(number, image=True, **more):
    """A request about an item, by default with a white image."""
    images = (encode_png(Image.new("RGB", (8, 8), "white")),) if image else ()
    return Row(f"r{number}", f"tell me about item {number}", images, role="harmful", harm_in="image", **more)


def behind(server, defence, chunk=100, **settings):
    """The server's model behind a defence."""
    return DefendedModel(Endpoint(Answering(base_url=server.url, model="answerer", **settings)), defence, chunk)


def results(model, rows):
    """{row id: result}"""
    found = {answer.id: answer for answer in model.answers(rows)}
    assert sorted(found) == sorted(one.id for one in rows)
    return found


@pytest.fixture
def local(tiny):
    """A function: generation settings -> the tiny LLaVA on this machine."""

    def make(**generation):
        source = ModelSource(ModelSettings(name="tiny", path=str(tiny("llava")), dtype="float32"))
        return LocalModel(source, Answering(**{"max_new_tokens": 6, "batch_size": 4} | generation))

    return make
