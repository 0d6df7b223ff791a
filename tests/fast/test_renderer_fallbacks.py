"""The fast path is not taken where it would differ from the plain path: odd processors, odd templates."""

import numpy as np
import pytest
from transformers import CLIPImageProcessorPil

import align.fast.image_transform
from align.batches.rendering import Renderer
from align.families import family_of
from align.fast.image_transform import Cropped, Patches
from align.fast.renderer import FastRenderer, renderer_of
from align.rows import Row
from tests.support import other_models
from tests.support.both_paths import FEW, agree, encoded


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
