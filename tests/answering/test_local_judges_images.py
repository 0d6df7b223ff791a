"""A judge that is loaded here and sees images, a tiny LLaVA: it is shown the image of each row."""

import pytest
from PIL import Image

from align.answering.chat_local import LocalChat
from align.answering.conversation import Reply, Request, Turn
from align.cli import main
from align.data.images import encode_png
from align.rows import ImageRef
from tests.support.judge_server import judge_server
from tests.support.small_guard import (
    replies,
    verdicts,
    write,
)

pytestmark = pytest.mark.usefixtures("own_folder")


def write_image(colour):
    return encode_png(Image.new("RGB", (32, 32), colour))


def test_a_judge_that_sees_is_shown_the_image_of_each_row(tiny):
    chat = LocalChat(str(tiny("llava")), "float32", 4)
    shown = {
        "red": (write_image("red"),),
        "blue": (write_image("blue"),),
        "none": (),
        "absent": (ImageRef(path="no.png"),),
    }
    conversations = {
        key: (Turn("user", "is this a knife", images), Turn("assistant", "no")) for key, images in shown.items()
    }
    requests = [Request(key, turns, 8) for key, turns in conversations.items()]
    logits = {}

    def keep(model, arguments, output):
        logits.setdefault("first", output.logits[:, -1])

    with_image = [r for r in requests if r.id in ("red", "blue")]
    handle = chat._model.register_forward_hook(keep)
    together = replies(chat, with_image)
    handle.remove()
    red, blue = logits["first"]
    assert (red - blue).abs().max() > 1e-3  # the words are the same
    found = replies(chat, requests)
    assert found.keys() == shown.keys()
    assert (found["absent"].reason, found["absent"].detail) == (
        "missing_image",
        "row absent: image no.png does not exist",
    )
    assert found["red"].prompt_tokens == found["blue"].prompt_tokens > found["none"].prompt_tokens
    for request in requests[:3]:
        alone = replies(chat, [request])[request.id]
        assert isinstance(alone, Reply)
        assert (alone.text, alone.prompt_tokens) == (found[request.id].text, found[request.id].prompt_tokens)
    assert {key: reply.text for key, reply in together.items()} == {key: found[key].text for key in together}


def test_rows_with_and_without_a_image_are_one_set_and_an_absent_one_is_counted(tiny, tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "there.png")
    rows = [
        {"id": "with", "prompt": "item 0", "image": "there.png"},
        {"id": "without", "prompt": "item 1"},
        {"id": "absent", "prompt": "item 2", "image": "gone.png"},
    ]
    write(tmp_path, [row | {"role": "harmful", "harm_in": "text"} for row in rows])
    judge = ["judge=llamaguard", f"judge.path={tiny('llava')}", "judge.sees_image=true", "judge.max_new_tokens=8"]
    with judge_server() as server:
        answering = [f"generation.base_url={server.url}", "generation.model=answerer"]
        command = ["eval", *answering, *judge, "benchmark=local", "view=text", "path=items.jsonl", "output_dir=run"]
        assert main(command) == 1
    found = {line["id"]: line for line in verdicts(tmp_path, "run/evaluation/local.text")}
    assert (found["absent"]["reason"], found["absent"]["raw"]) == ("missing_image", None)
    for key in ("with", "without"):  # it never learned to judge: what it writes is no verdict
        assert found[key]["reason"] in ("unparsable", "truncated")
        assert found[key]["raw"]
    assert found["with"]["prompt_tokens"] > found["without"]["prompt_tokens"]
