"""Rows that a model cannot train on: all of them are counted by kind, and on request they are dropped and named."""

import json
import re
import struct
import zlib

import pytest
from PIL import Image

from align.config.compose import compose_run
from align.errors import UserError
from align.training.run import train
from tests.support.local_rows import data_of, local_run, rows, write_image

pytestmark = pytest.mark.usefixtures("cache")


def bomb(file):
    """A PNG of a few bytes whose header claims 60,000 x 60,000 pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def test_all_bad_rows_of_all_parts_are_counted_by_kind_and_the_first_of_each_named(tiny, tmp_path):
    write_image(tmp_path / "line.png", (5000, 1))
    bomb(tmp_path / "bomb.png")
    (tmp_path / "text.png").write_text("no image")
    special = {f"h{i}": {"response": "red " * 200} for i in range(7)}
    special |= {
        "h10": {"response": "sorry <|im_end|> red"},
        "h11": {"prompt": "what is this <|image_pad|>"},
        "h12": {"response": None},
    }
    special |= {"h13": {"image": "line.png"}, "h14": {"image": "text.png"}, "h15": {"image": "bomb.png"}}
    command = local_run(tiny("qwen2_vl"), tmp_path, rows(**special), view="image")
    with pytest.raises(UserError) as refused:
        train(compose_run(command))
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("13 of 40 training rows")
    counted = {tuple(re.findall(r"own/h[0-9]+", line)): int(re.search(r"[0-9]+", line).group()) for line in lines[1:-1]}
    assert counted == {
        tuple(f"own/h{i}" for i in range(5)): 7,
        ("own/h10", "own/h11"): 2,
        ("own/h14", "own/h15"): 2,
        ("own/h12",): 1,
        ("own/h13",): 1,
    }
    assert "on_bad_row=drop" in lines[-1]


def test_dropped_rows_are_exactly_the_bad_ones_named_and_counted_in_the_manifest(tiny, tmp_path):
    write_image(tmp_path / "line.png", (5000, 1))
    (tmp_path / "text.png").write_text("no image")
    planted = {
        "too_long_for_model": {"h7": {"response": "red " * 200}, "h990": {"response": "red " * 130}},
        "special_token": {"h10": {"response": "sorry <|im_end|> red"}, "h11": {"prompt": "what is <|image_pad|>"}},
        "no_answer": {"h12": {"response": None}, "h13": {}, "h17": {"response": " "}},
        "empty_prompt": {"h18": {"prompt": ""}},
        "image_shape": {"h14": {"image": "line.png"}},
        "image_unreadable": {"h15": {"image": "text.png"}, "h16": {"image": "cut.png"}},
        "too_long": {"h999": {"response": "red " * 100}},
    }
    write_image(tmp_path / "cut.png", (400, 400))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-40])  # only decoding shows it
    write_image(tmp_path / "good.png")
    special = {name: fields for of in planted.values() for name, fields in of.items()}
    given = rows(1000, **special, h500={"image": "good.png"})
    del given[13]["response"]
    command = local_run(
        tiny("qwen2_vl"), tmp_path, given, "on_bad_row=drop", "train.max_length=110", "train.max_steps=1", view="image"
    )
    planted["too_long"] |= planted.pop("too_long_for_model")
    run = train(compose_run(command))
    data = run.manifest()["data"]
    assert {kind: sorted(ids) for kind, ids in data["dropped"].items()} == {
        kind: sorted(f"own/{name}" for name in of) for kind, of in planted.items()
    }
    assert data["rows"] == 988
    assert data["parts"] == {"own": 988}
    trained = {json.loads(line)["id"] for line in run.rows_file.open()}
    assert trained == {f"own/h{i}" for i in range(1000)} - {f"own/{name}" for name in special}


def test_a_row_longer_than_the_models_context_is_refused(tiny, tmp_path):
    words = local_run(tiny("qwen2_vl"), tmp_path, rows(h2={"response": "red " * 300}), "train.max_length=null")
    with pytest.raises(UserError, match="own/h2: 3[0-9]{2} tokens .* is 128"):
        train(compose_run(words))


@pytest.mark.parametrize("view", ["image", "shuffled", "blank"])
def test_the_row_whose_own_image_is_bad_is_dropped_whatever_is_shown_in_its_place(tiny, tmp_path, view):
    for i in range(8):
        Image.new("RGB", (32, 32), (20 * i, 30, 30)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_text("no image")
    (tmp_path / "5.png").write_bytes((tmp_path / "5.png").read_bytes()[:-40])
    with_images = [row | {"image": f"{i}.png", "harm_in": "text"} for i, row in enumerate(rows(8))]
    words = local_run(tiny("llava"), tmp_path, with_images, "on_bad_row=drop", "train.max_steps=1", view=view)
    data = data_of(words)
    assert data["dropped"] == {"image_unreadable": ["own/h3", "own/h5"]}
    assert data["rows"] == 6


def test_a_row_without_the_caption_that_its_view_shows_is_one_of_the_bad_rows(tiny, tmp_path):
    write_image(tmp_path / "a.png")
    with_images = [row | {"image": "a.png", "caption": "a cup", "harm_in": "text"} for row in rows(8)]
    del with_images[2]["caption"]
    words = local_run(tiny("llava"), tmp_path, with_images, "on_bad_row=drop", "train.max_steps=1", view="caption")
    assert data_of(words)["dropped"] == {"no_caption": ["own/h2"]}


def test_what_a_method_needs_of_all_rows_holds_for_those_that_are_left(tiny, tmp_path):
    harmful = [row | {"role": "harmful", "harmful_response": "red " * 200} for row in rows(4)]
    benign = [row | {"role": "benign", "id": f"b{i}"} for i, row in enumerate(rows(4))]
    words = local_run(tiny("llava"), tmp_path, [*harmful, *benign], "method=unlearning", "on_bad_row=drop")
    with pytest.raises(UserError, match="none of the 4 rows is harmful"):
        train(compose_run(words))


def test_words_of_rows_that_are_left_out_are_not_counted_as_unknown(tiny, tmp_path):
    words = local_run(
        tiny("llava"),
        tmp_path,
        rows(9, h3={"response": "photosynthesis " * 120}),
        "on_bad_row=drop",
        "train.max_steps=1",
    )
    assert not any("unknown" in fact for fact in data_of(words)["facts"])
