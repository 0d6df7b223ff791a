"""The fast path gives what the plain path gives, to the bit, and steps aside where it would not."""

import copy
import io
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessorPil

import align.fast.image_transform
from align.batches.rendering import Renderer
from align.data.images import load_image
from align.families import family_of
from align.fast.image_transform import AsTheProcessor, Cropped, Patches, images_of
from align.fast.renderer import FastRenderer, faster, renderer_of, same
from align.models.processors import load_processor
from align.rows import ImageRef, Row
from align.settings import ModelSettings
from tests.conftest import REAL
from tests.support import other_models
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


def encoded(size, mode="RGB", orientation=1, kind="PNG", seed=0):
    """An image of noise, as a file's bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    tags, buffer = Image.Exif(), io.BytesIO()
    tags[274] = orientation
    Image.fromarray(pixels).convert("RGB").convert(mode).save(buffer, kind, exif=tags)
    return ImageRef(bytes=buffer.getvalue())


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
FEW = [encoded((40, 30)), encoded((7, 60), "L"), encoded((90, 33), "RGBA", 6)]
ROWS = st.builds(
    lambda prompt, images: Row("r", prompt, tuple(images)),
    TEXTS,
    st.one_of(st.lists(st.sampled_from(FEW), max_size=3), st.lists(IMAGES, max_size=1)),
)


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
    plain = plain or plain_of(fast)
    expected, found = (outcome(it.render_answers, row, answers) for it in (plain, fast))
    if isinstance(expected, tuple):
        assert found == expected
    else:
        assert all(same(*pair) for pair in zip(expected, found, strict=True))
    texts = [answer for answer in answers if answer is not None]
    assert outcome(fast.measure, row, texts) == outcome(plain.measure, row, texts)


def test_known_processors_take_the_fast_path(any_renderer):
    assert isinstance(any_renderer, FastRenderer)
    assert type(any_renderer.images) is {"llava": Cropped, "qwen2_vl": Patches}[any_renderer.family.model_type]
    assert all(
        any_renderer.around(Row("r", "p", (FEW[0],) * n), answered) for n in (0, 2) for answered in (True, False)
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


class Slower(CLIPImageProcessorPil):
    """A class of one's own."""


ODD = {
    "no center crop": {"do_center_crop": False},
    "padding": {"do_pad": True},
    "another filter": {"resample": 2},
    "no conversion to RGB": {"do_convert_rgb": False},
    "no rescaling": {"do_rescale": False},
    "no normalisation": {"do_normalize": False},
    "no resizing": {"do_resize": False},
    "both sides given": {"size": {"height": 32, "width": 32}},
    "a crop larger than what is cut": {"crop_size": {"height": 40, "width": 40}},
    "one mean": {"image_mean": 0.5, "image_std": 0.5},
    "a setting that nobody knows": {"do_sharpen": True},
    "a class of one's own": {},
}


@pytest.mark.parametrize("name", ODD)
def test_settings_of_an_image_processor_that_are_not_covered_are_left_to_it(loaded, name):
    it = loaded("llava")
    kind = Slower if name == "a class of one's own" else CLIPImageProcessorPil
    it.processor.image_processor = kind(**{**it.processor.image_processor.to_dict(), **ODD[name]})
    fast = renderer_of(it.processor, it.family)
    assert not isinstance(getattr(fast, "images", None), Cropped)
    agree(fast, Row("r", "what is this", (encoded((32, 32)),)), ["a knife"])
    if name != "padding":  # of images of one size nothing is padded
        agree(fast, Row("r", "what is this", (encoded((32, 32)), encoded((32, 32), seed=1))), ["a knife"])


@pytest.mark.parametrize(
    "odd", [{"resample": 2}, {"do_convert_rgb": False}, {"do_resize": False}, {"do_normalize": False}]
)
def test_so_are_those_of_qwen2_vls(loaded, odd):
    it = loaded("qwen2_vl")
    for name, value in odd.items():
        setattr(it.processor.image_processor, name, value)
    fast = renderer_of(it.processor, it.family)
    assert not isinstance(getattr(fast, "images", None), Patches)
    agree(fast, Row("r", "what is this", (encoded((32, 32)), encoded((32, 32), seed=1))), ["a knife"])


def test_an_image_processor_that_began_to_do_otherwise_is_asked_itself(loaded, monkeypatch):
    """As another version of transformers may: a row rendered both ways tells."""
    it = loaded("llava")
    table = align.fast.image_transform._table
    monkeypatch.setattr(align.fast.image_transform, "_table", lambda images: np.nextafter(table(images), np.float32(9)))
    assert type(renderer_of(it.processor, it.family)) is Renderer


@pytest.mark.parametrize("family", ["gemma3", "mllama"])
def test_processors_of_other_families_are_asked_themselves(family):
    _, processor = getattr(other_models, family)()
    assert type(renderer_of(processor, family_of(family))) is Renderer


def test_what_a_call_left_in_the_tokenizer_is_taken_out(renderer, family_name):
    fast, row = renderer(family_name), Row("r", "what is this", (FEW[0],))
    expected = fast.render(row, "a knife")
    fast.processor.tokenizer(["what is", "this"], padding="max_length", max_length=50, truncation=True)
    assert same(fast.render(row, "a knife"), expected)


TRIMMED = (
    "{% for m in messages %}{{ m.role }}: {% for p in m.content %}"
    "{% if p.type == 'image' %}<image>{% else %}{{ p.text | trim }}{% endif %}"
    "{% endfor %} {% endfor %}"
)
ODD_TEMPLATES = {
    "trimmed": TRIMMED,
    "looked at": TRIMMED.replace("p.text | trim", "p.text + ('!' if 'knife' in p.text else '')"),
    "measured": TRIMMED.replace("p.text | trim", "p.text + ' ' * (p.text | length)"),
    "twice": TRIMMED.replace("p.text | trim", "p.text + p.text"),
    "kept by a macro": "{% macro kept(p) %}{{ p.text }}{% endmacro %}"
    + TRIMMED.replace("p.text | trim", "kept(p) | trim"),
    "kept by a block": TRIMMED.replace(
        "{{ p.text | trim }}", "{% set kept %}{{ p.text }}{% endset %}{{ kept | trim }}"
    ),
    "kept by a filter": TRIMMED.replace("{{ p.text | trim }}", "{% filter trim %}{{ p.text }}{% endfilter %}"),
    "taken for a number": TRIMMED.replace("p.text | trim", "p.text + ('!' if p.text | int > 5 else '')"),
    "dated": "{{ strftime_now('%d') }} " + TRIMMED.replace(" | trim", ""),
    "all of it": "{{ messages | string }}",
}


@pytest.mark.parametrize("name", ODD_TEMPLATES)
def test_a_template_that_does_more_with_a_text_than_write_it_is_applied_to_every_row(loaded, name):
    it = loaded("llava")
    it.processor.chat_template = ODD_TEMPLATES[name]
    fast = FastRenderer(Renderer(it.processor, it.family))
    rows = [Row("r", text, images) for text in ("what is this", " 17 ", "a knife") for images in ((), (FEW[0],))]
    assert all(fast.around(row, answer) is None for row in rows for answer in ("a", None))
    for row in rows:
        agree(fast, row, ["a knife", " 9"])


def test_another_template_that_writes_texts_as_they_are_is_taken_apart(loaded):
    it = loaded("llava")
    it.processor.chat_template = TRIMMED.replace(" | trim", "")
    fast = FastRenderer(Renderer(it.processor, it.family))
    assert fast.around(Row("r", "a", (FEW[0],)), "b") == ["user: <image>", " assistant: ", " "]
    agree(fast, Row("r", " what is this\n", (FEW[0],)), [" a knife "])


def test_the_templates_that_a_processor_chooses_from_are_left_to_it(loaded):
    it = loaded("llava")
    it.processor.chat_template = {"default": it.processor.chat_template, "other": "x"}
    fast = renderer_of(it.processor, it.family)
    assert fast.around(Row("r", "a"), None) is None
    agree(fast, Row("r", "what is this", (FEW[0],)), ["a knife"])


def test_pixel_bounds_of_a_run_hold_on_the_fast_path_too(shared):
    told = ModelSettings(min_pixels=3136, max_pixels=25088)
    processor = load_processor(str(shared / "hub" / REAL["qwen2_vl"]), told)
    fast = renderer_of(processor, family_of("qwen2_vl"), told)
    assert isinstance(fast.images, Patches)
    agree(fast, Row("r", "what is this", (encoded((640, 480)),)), ["a knife"])
