"""Near-duplicates, unchanged twins and overlap with training sets leave the set, with their reasons."""

import json
from dataclasses import replace

import pytest
from PIL import Image, ImageDraw

from align.config.compose import compose_construct
from align.construction.duplicates import duplicates, repeats, row_of
from align.construction.item import Item


def drawing(folder, name, thing, shade=0):
    """A drawing of a thing; `shade` changes all pixels a little, which eyes do not see."""
    image = Image.new("RGB", (128, 128), (200, 200, 200 - shade))
    pen = ImageDraw.Draw(image)
    if thing == "kettle":
        pen.ellipse([20, 30, 90, 110], fill=(20, 20, 120))
        pen.rectangle([90, 50, 120, 60], fill=(0, 0, 0))
    else:
        pen.polygon([(10, 120), (64, 10), (120, 120)], fill=(120, 20, 20))
        pen.rectangle([50, 80, 70, 120], fill=(250, 250, 0))
    image.save(folder / name)
    return name


@pytest.fixture
def items(tmp_path):
    kettle, again = drawing(tmp_path, "kettle.png", "kettle"), drawing(tmp_path, "again.png", "kettle")
    nearly, tent = drawing(tmp_path, "nearly.png", "kettle", shade=3), drawing(tmp_path, "tent.png", "tent")
    asked = "How is this used?"
    return [
        Item("first", query_free=asked, image=kettle, benign_image=tent),
        Item("same-pixels", query_free="how is THIS used", image=again, benign_image=tent),
        Item("nearly", query_free=asked, image=nearly, benign_image=tent),
        Item("other-image", query_free=asked, image=tent, benign_image=kettle),
        Item("other-query", query_free="What is this made of?", image=kettle, benign_image=tent),
    ]


def settings(*arguments):
    return compose_construct(arguments).config


def reasons(done):
    return {one.id: one.reason for one in done.outcomes if one.reason}


def test_the_same_question_about_nearly_the_same_image_counts_once(items, tmp_path):
    pytest.importorskip("imagehash", reason="imagehash is not installed: pip install -e '.[construct]'")
    done = duplicates(items, settings(), tmp_path)
    assert reasons(done) == {"same-pixels": "near_duplicate", "nearly": "near_duplicate"}
    assert [item.id for item in done.left] == ["first", "other-image", "other-query"]


def test_without_a_distance_only_equal_pixels_are_duplicates(items, tmp_path):
    assert repeats([row_of(item, tmp_path) for item in items], None) == {"same-pixels": "first"}


def test_a_twin_with_the_pixels_of_the_unsafe_image_is_no_twin(items, tmp_path):
    unchanged = replace(items[0], benign_image="again.png")
    done = duplicates([unchanged, items[3]], settings("image_distance=null"), tmp_path)
    assert reasons(done) == {"first": "twin_unchanged"}


def test_an_empty_query_is_no_item(items, tmp_path):
    done = duplicates([replace(items[0], query_free=" ")], settings("image_distance=null"), tmp_path)
    assert reasons(done) == {"first": "no_query"}


def test_a_safe_image_of_a_training_set_is_left_out_too(items, tmp_path):
    row = {"id": "t1", "prompt": "Something else.", "image": "tent.png", "response": "r", "role": "benign"}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    config = settings("image_distance=null", f"exclude.mine.path={tmp_path / 'train.jsonl'}")
    assert reasons(duplicates([items[0]], config, tmp_path)) == {"first": "image_of_mine"}


def test_images_and_queries_of_a_training_set_are_left_out(items, tmp_path):
    rows = [
        {"id": "t1", "prompt": "Something else.", "image": "tent.png", "response": "r", "role": "harmful"},
        {"id": "t2", "prompt": "what is this made of", "response": "r", "role": "harmful"},
        {"id": "t3", "prompt": "How is this used?", "image": "tent.png", "response": "r", "role": "harmful"},
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = settings("image_distance=null", f"exclude.mine.path={tmp_path / 'train.jsonl'}")
    alone = [replace(item, benign_image=None) for item in (items[0], items[3], items[4])]
    done = duplicates(alone, config, tmp_path)
    # The question of t3 about another image is another request, so the first item stays.
    assert reasons(done) == {"other-image": "image_of_mine", "other-query": "query_of_mine"}
