"""What of a row the model sees: five views, and what each takes away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from align.data.images import encode_png, load_image
from align.data.views import GREY, check_labels, check_view, show
from align.errors import UserError
from align.rows import VIEWS, Row, split_view


def write_image(red, size=(6, 4)):
    return encode_png(Image.new("RGB", size, (red, 0, 0)))


def item(i, **more):
    return Row(f"r{i}", f"question {i}", images=(write_image(i),), cluster=f"c{i}", caption=f"caption {i}", **more)


ITEMS = [item(i) for i in range(6)]


def test_image_is_the_row_as_it_is():
    assert show(ITEMS[0], "image", ITEMS) == ITEMS[0]


def test_text_drops_the_image_and_nothing_else():
    seen = show(ITEMS[0], "text", ITEMS)
    assert (seen.images, seen.prompt, seen.view, seen.caption) == ((), "question 0", "text", "caption 0")


def test_caption_puts_the_caption_before_the_request():
    seen = show(ITEMS[0], "caption", ITEMS)
    assert (seen.images, seen.prompt) == ((), "caption 0\nquestion 0")
    with pytest.raises(UserError, match="row r .*view=caption needs a `caption`"):
        show(Row("r", "p", images=(write_image(0),)), "caption", ITEMS)


def test_blank_is_an_even_grey_of_the_same_size():
    shown = load_image(show(ITEMS[0], "blank", ITEMS).images[0], "here")
    assert (shown.size, shown.getcolors()) == ((6, 4), [(24, GREY)])


@pytest.mark.parametrize("size", [(100, 60), (32, 32), (57, 301)])
def test_a_blank_image_takes_as_many_tokens_as_the_image(any_renderer, size):
    row = Row("r", "what is this", images=(write_image(200, size),))
    assert any_renderer.render(show(row, "blank", [])).prompt_ids == any_renderer.render(row).prompt_ids


@given(st.permutations(range(6)))
def test_shuffled_shows_another_items_image_whatever_the_order_of_rows(order):
    shuffled = {row.id: show(row, "shuffled", ITEMS) for row in (ITEMS[i] for i in order)}
    for row in ITEMS:
        seen = shuffled[row.id]
        assert seen.images != row.images
        assert seen.images in {other.images for other in ITEMS}
        assert (seen.prompt, seen.view) == (row.prompt, "shuffled")
        assert seen == show(row, "shuffled", ITEMS)


def test_a_twin_is_not_another_item():
    twins = [item(0, twin="t"), item(1, twin="t"), item(2, twin="u")]
    assert show(twins[0], "shuffled", twins).images == twins[2].images
    with pytest.raises(UserError, match="row r0 .*no image of another item among 2 rows with images"):
        show(twins[0], "shuffled", twins[:2])


@pytest.mark.parametrize("view", VIEWS)
def test_a_row_without_image_is_the_same_in_every_view(view):
    row = Row("r", "p", role="harmful", harm_in="text")
    seen = show(row, view, ITEMS)
    assert (seen.prompt, seen.images) == (row.prompt, row.images)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("role", "harm_in"), [("harmful", "image"), ("harmful", "both"), ("harmful", "text"), ("benign", "none")]
)
def test_a_view_that_hides_the_only_evidence_is_refused_or_counted(view, role, harm_in):
    rows = [item(i, role=role, harm_in=harm_in) for i in range(3)]
    hides = view in ("text", "shuffled", "blank") and (harm_in == "image" or role == "benign")
    assert check_labels(rows, view, allow_label_conflict=True) == (3 if hides else 0)
    if hides:
        with pytest.raises(UserError, match=f"view={view} hides the only evidence .* 3 .* first: r0, r1, r2"):
            check_labels(rows, view, allow_label_conflict=False)
    else:
        check_labels(rows, view, allow_label_conflict=False)


def test_harm_in_an_image_that_is_not_there_is_refused_in_every_view():
    with pytest.raises(UserError, match="1 training rows .*harm_in=image .*no image, first: r"):
        check_labels([Row("r", "p", role="harmful", harm_in="image")], "image", allow_label_conflict=True)


def test_names_of_views():
    with pytest.raises(UserError, match="view=pixels: expected one of image, text, caption, shuffled, blank"):
        check_view("pixels")
    assert [split_view(name) for name in ("a", "a.blank", "m:x.y", "m:x.text", "blank")] == [
        ("a", None),
        ("a", "blank"),
        ("m:x.y", None),
        ("m:x", "text"),
        ("blank", None),
    ]
