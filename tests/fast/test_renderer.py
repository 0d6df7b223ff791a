"""The fast path gives what the plain path gives, to the bit."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from align.data.images import load_image
from align.families import family_of
from align.fast.image_transform import AsTheProcessor, Cropped, Patches, images_of
from align.fast.renderer import FastRenderer, faster, renderer_of, same
from align.models.processors import load_processor
from align.rows import ImageRef, Row
from align.settings import ModelSettings
from tests.conftest import REAL
from tests.support.both_paths import FEW, agree, encoded, outcome, plain_of
from tests.support.odd_images import images

PIECES = (
    *(
        "what is this",
        "how do i use this",
        "knife",
        "Straße",
        "日本語",
        "🙂‍↔️",
        "e\u0301",
        "\u00a0",
        "\u200b",
        "▁",
        "'s",
        "123",
    ),
    *(
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "\r\n",
        "\x00",
        "\\n",
        "{{ x }}",
        "{% if %}",
        "\ue0000\ue001",
        "USER: ",
        " ASSISTANT:",
    ),
    *(
        "<image>",
        "<s>",
        "</s>",
        "<unk>",
        "<|im_start|>",
        "<|im_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
        "<|vision_start|>",
    ),
)
TEXTS = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
"""Any text, and texts of what tokenizers and templates may trip over; each model's own tokens among them."""
NOT_JPEG = ("P", "LA", "RGBA", "1")
IMAGES = st.builds(
    lambda size, mode, turn, jpeg, seed: encoded(
        size, mode, turn, "JPEG" if jpeg and mode not in NOT_JPEG else "PNG", seed
    ),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from(["RGB", "L", "P", "LA", "RGBA", "1"]),
    st.integers(0, 9),
    st.booleans(),
    st.integers(0, 3),
)
ROWS = st.builds(
    lambda prompt, images: Row("r", prompt, tuple(images)),
    TEXTS,
    st.one_of(st.lists(st.sampled_from(FEW), max_size=3), st.lists(IMAGES, max_size=1)),
)


def test_known_processors_take_the_fast_path(any_renderer):
    assert isinstance(any_renderer, FastRenderer)
    assert type(any_renderer.images) is {"llava": Cropped, "qwen2_vl": Patches}[any_renderer.family.model_type]
    assert all(
        any_renderer.around(Row("r", "p", (FEW[0],) * n), answer) for n in (0, 2) for answer in ("a knife", None)
    )


@settings(max_examples=50, deadline=None)
@given(row=ROWS, answers=st.lists(st.one_of(st.none(), TEXTS), max_size=3))
@example(row=Row("r", "what is this"), answers=[" a knife"])
@example(row=Row("r", "what is this "), answers=["\n\na knife\n", "a knife", "\ta"])
@example(row=Row("r", ""), answers=["."])
@example(row=Row("r", "a", (FEW[0], FEW[1])), answers=["a", None, ""])
@example(row=Row("r", "a", (ImageRef(path="/nowhere.png"),)), answers=["", "a"])
def test_any_row_is_the_same_either_way(any_renderer, row, answers):
    agree(any_renderer, row, answers)


@settings(max_examples=15, deadline=None)
@given(row=ROWS, answer=TEXTS, system=st.one_of(st.none(), TEXTS), aspect=st.sampled_from([None, "pad"]))
@example(row=Row("r", "a"), answer="a", system="look at <image> and <|image_pad|>", aspect=None)
@example(row=Row("r", "a", (FEW[0],)), answer="a", system="<|video_pad|> <image>", aspect=None)
def test_so_it_is_behind_a_system_prompt_and_on_a_square(any_renderer, row, answer, system, aspect):
    plain = copy.copy(plain_of(any_renderer))
    plain.settings = replace(any_renderer.settings, system_prompt=system, image_aspect_ratio=aspect)
    agree(faster(plain), row, [answer], plain)


@pytest.mark.parametrize(
    "size", [(640, 480), (480, 641), (336, 336), (337, 335), (1280, 333), (30, 5000), (1, 1), (5, 999)]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pixels_and_grids_of_larger_images_are_the_same(any_renderer, size, kind):
    agree(any_renderer, Row("r", "what is this", (encoded(size, kind=kind),)), ["a knife"])


@pytest.mark.parametrize("name", sorted(images()))
def test_unusual_files_are_the_same_either_way_and_so_are_damaged_ones(renderer, family_name, name):
    agree(renderer(family_name), Row("r", "what is this", (ImageRef(bytes=images()[name][0]),)), ["a knife"])


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    patch=st.sampled_from([4, 7, 14, 16]),
    merge=st.integers(1, 3),
    frames=st.integers(1, 3),
    least=st.integers(1, 40_000),
    more=st.integers(0, 40_000),
)
def test_any_patches_are_the_processors_own(renderer, size, patch, merge, frames, least, more):
    processor = renderer("qwen2_vl").processor
    images = processor.image_processor
    kept = vars(images).copy()
    try:
        images.patch_size, images.merge_size, images.temporal_patch_size = patch, merge, frames
        images.size = type(images.size)(shortest_edge=least, longest_edge=least + more)
        fast, shown = images_of(processor), load_image(encoded(size), "here")
        assert isinstance(fast, Patches)
        expected, found = (outcome(it.inputs, [shown, shown]) for it in (AsTheProcessor(processor), fast))
        if isinstance(expected[0], type):  # an aspect ratio that is refused
            assert found == expected
        else:
            assert expected[1] == found[1] == [fast.tokens(*size)] * 2
            assert expected[0].keys() == found[0].keys()
            assert all(torch.equal(expected[0][key], found[0][key]) for key in found[0])
    finally:
        vars(images).clear()
        vars(images).update(kept)


def test_what_a_call_left_in_the_tokenizer_is_taken_out(renderer, family_name):
    fast, row = renderer(family_name), Row("r", "what is this", (FEW[0],))
    expected = fast.render(row, "a knife")
    fast.processor.tokenizer(["what is", "this"], padding="max_length", max_length=50, truncation=True)
    assert same(fast.render(row, "a knife"), expected)


def test_pixel_bounds_of_a_run_hold_on_the_fast_path_too(shared):
    told = ModelSettings(min_pixels=3136, max_pixels=25088)
    processor = load_processor(str(shared / "hub" / REAL["qwen2_vl"]), told)
    fast = renderer_of(processor, family_of("qwen2_vl"), told)
    assert isinstance(fast.images, Patches)
    agree(fast, Row("r", "what is this", (encoded((640, 480)),)), ["a knife"])
