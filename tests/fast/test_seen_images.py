"""An image that a model has seen is not encoded again, and the answers are the same."""

from dataclasses import replace

import pytest

from align.answering.generate import generate
from align.fast.seen_images import KeptFeatures, SeenImages
from align.miniature.benchmarks import evaluation_rows
from align.settings import Generation


def counted(model):
    """How many images each call of the vision tower was given."""
    tower, given = (
        model.base_model.vision_tower if hasattr(model.base_model, "vision_tower") else model.base_model.visual,
        [],
    )

    def note(module, args, kwargs):
        grid = kwargs.get("grid_thw")
        given.append(len(args[0] if args else kwargs["pixel_values"]) if grid is None else len(grid))

    tower.register_forward_pre_hook(note, with_kwargs=True)
    return given


def test_an_image_of_several_rows_sets_and_views_is_encoded_once(loaded, family_name):
    it = loaded(family_name)
    first = evaluation_rows("vsil_free", 6)
    again = [replace(row, id=f"{row.id}-again", prompt=f"please {row.prompt}") for row in first]
    other = evaluation_rows("vsil", 3)
    settings = Generation(max_new_tokens=4, batch_size=4)
    expected = [[a.response for a in generate(it.model, it.renderer, rows, settings)] for rows in (first, again, other)]
    given, seen = counted(it.model), SeenImages(it.model, it.family)
    found = [
        [a.response for a in generate(it.model, it.renderer, rows, settings, seen)] for rows in (first, again, other)
    ]
    assert found == expected
    distinct = {row.images for row in [*first, *other]}
    assert sum(given) == len(distinct)


def test_two_rows_of_one_batch_that_show_one_image(loaded, family_name):
    it = loaded(family_name)
    row = evaluation_rows("vsil_free", 1)[0]
    rows = [row, replace(row, id="second", prompt=f"please {row.prompt}"), replace(row, id="without", images=())]
    settings = Generation(max_new_tokens=4, batch_size=4)
    expected = {a.id: a.response for a in generate(it.model, it.renderer, rows, settings)}
    given = counted(it.model)
    seen = SeenImages(it.model, it.family)
    assert {a.id: a.response for a in generate(it.model, it.renderer, rows, settings, seen)} == expected
    assert given == [1]


def test_what_there_is_no_room_for_is_encoded_each_time(loaded):
    it = loaded("llava")
    rows = evaluation_rows("vsil_free", 3)
    settings = Generation(max_new_tokens=1, batch_size=1)
    given, seen = counted(it.model), SeenImages(it.model, it.family, limit=16 * 128 * 4)  # one image of 16 tokens
    for _ in range(2):
        list(generate(it.model, it.renderer, rows, settings, seen))
    assert given == [1] * 5


def test_a_family_that_is_not_known_is_left_alone(loaded):
    it = loaded("llava")
    before = it.model.base_model.get_image_features
    seen = SeenImages(it.model, replace(it.family, lays_out=False))
    with seen.shown([]):
        pass
    assert it.model.base_model.get_image_features == before


def test_kept_features_do_not_go_beyond_their_limit():
    torch = pytest.importorskip("torch")
    kept = KeptFeatures(limit=8)
    kept.add("a", torch.zeros(2))
    kept.add("b", torch.zeros(1))
    assert kept.find("b") is None
    assert kept.find("a") is not None
