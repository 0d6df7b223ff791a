"""The review page in a real browser: blur, keys, planted markup, and decisions that come back exactly."""

import json

import pytest
from PIL import Image

from align.construction.item import Item
from align.construction.review.decisions import read_decisions
from align.construction.review.export import export, key_of
from tests.support.browser import chromium

EVIL = (
    "</script><script>document.title='planted'</script><img src=x onerror=\"document.title='planted'\"><b>bold</b> "
    "{{ 7 * 7 }} & 'quoted'"
)


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def items(tmp_path):
    for i in range(4):
        Image.new("RGB", (30, 20), (60 * i, 90, 9)).save(tmp_path / f"{i}.png")
    plain = [
        Item(f"i{i}", query_free=f"How is this used, {i}?", image=f"{i}.png", benign_image=f"{i}.png") for i in range(3)
    ]
    return [Item("i3", category=EVIL, element=EVIL, query_leak=EVIL, query_free=EVIL, image="3.png"), *plain]


@pytest.fixture
def page(browser, items, tmp_path):
    _, file = export(items, tmp_path)
    errors = []
    page = browser.new_page(accept_downloads=True)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(file.as_uri())
    yield page
    page.close()
    assert errors == []


def blurred(page, name="image"):
    return "blur" in page.locator(f"#{name}").evaluate("image => getComputedStyle(image).filter")


def test_planted_markup_stays_text(page):
    assert page.title() != "planted"
    assert page.locator("#query").inner_text() == EVIL
    assert page.locator("#query b").count() == 0
    assert "bold" in page.locator("#category").inner_text()


def test_images_are_blurred_until_asked_and_again_for_the_next_item(page):
    assert blurred(page)
    assert page.locator("#image").evaluate("image => image.naturalWidth") == 30
    page.keyboard.press("Space")
    assert not blurred(page)
    page.keyboard.press("ArrowRight")
    assert blurred(page)
    assert blurred(page, "benign")


def test_decisions_by_key_are_saved_and_imported_exactly(page, items, tmp_path):
    page.fill("#person", "Ada L.")
    page.locator("h1").click()  # the keys are for the page, not for a field
    page.keyboard.press("d")
    page.keyboard.press("k")
    page.fill("#note", "hard to see; k d s")
    page.locator("h1").click()
    page.keyboard.press("k")
    page.keyboard.press("d")
    page.keyboard.press("u")  # the last item: undecided again
    with page.expect_download() as download:
        page.keyboard.press("s")
    file = tmp_path / "saved.json"
    download.value.save_as(file)
    found = {one.item: (one.person, one.decision, one.note, one.key) for one in read_decisions([str(file)])}
    expected = {"i3": "drop", "i0": "keep", "i1": "keep"}
    notes = {"i1": "hard to see; k d s"}
    keys = {item.id: key_of(item) for item in items}
    assert found == {item: ("Ada L.", decision, notes.get(item, ""), keys[item]) for item, decision in expected.items()}
    assert json.loads(file.read_text())["schema"] == 1


def test_nothing_is_saved_without_a_name(page):
    page.keyboard.press("k")
    page.keyboard.press("s")
    assert page.evaluate("document.activeElement.id") == "person"


def test_a_reload_keeps_what_was_decided(page):
    page.keyboard.press("k")
    page.reload()
    assert "1 of 4" in page.locator("#count").inner_text()


def test_the_page_fits_a_narrow_screen(page):
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
