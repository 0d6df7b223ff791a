"""The page in a real browser: Debian's Chromium, driven by playwright through its path."""

import inspect
import json

import pytest

from align.cli import main
from tests.support.answered_runs import answered
from tests.support.browser import chromium
from tests.support.pages import EVIL, PLANTED


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page of three arms on 30 rows a set, one of them with texts that would like to be more than text."""
    folder = tmp_path_factory.mktemp("page")
    answered(folder / "runs" / "t", folder / "images", answer="text alone says {i}", n=30)
    answered(folder / "runs" / "mm", folder / "images", answer="with images {i}", name="mm_sft", view="image", n=30)
    answered(
        folder / "runs" / "x",
        folder / "images",
        answer=EVIL.replace("{", "{{").replace("}", "}}"),
        reason=EVIL,
        name=f"mm_{PLANTED[1]}",
        view="image",
        n=30,
    )
    assert main(["report", f"runs={folder / 'runs'}"]) == 0
    return folder / "runs" / "report.html"


@pytest.fixture
def opened(browser, report):
    """A function: settings of a browser's page -> the report in it; nothing may be said on the
    console, and nothing fetched.
    """
    said, pages = [], []

    def open_it(**settings):
        page = browser.new_page(**settings)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request",
            lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
        )
        page.goto(report.as_uri())
        pages.append(page)
        return page

    yield open_it
    assert said == []
    for page in pages:
        page.close()


def until(page, holds):
    """Wait for what the page shows a moment later; its own rules forbid playwright's way of asking, which is eval."""
    for _ in range(250):
        if holds():
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never came to be: {inspect.getsource(holds).strip()}")


def shown(page):
    return page.locator("#list > li")


def test_the_finding_is_shown_first_an_answer_beside_its_counterpart(opened):
    page = opened()
    assert shown(page).count() == 20
    first = shown(page).first
    assert first.locator(".answer .who").all_inner_texts() == ["T-SFTrefusal", "MM-SFTrefusal"]
    assert page.locator("#status").inner_text().startswith("30 of 90 items.")


def test_images_and_unsafe_text_are_blurred_until_asked_for_one_by_one(opened):
    page = opened()
    unsafe = shown(page).filter(has_text="unsafe").first
    veiled = unsafe.locator(".answer .veil-content")
    assert veiled.count() == 2
    assert "blur" in veiled.first.evaluate("one => getComputedStyle(one).filter")
    assert "blur" in unsafe.locator(".image .veil-content").evaluate("one => getComputedStyle(one).filter")
    assert unsafe.locator(".image img").evaluate("one => one.naturalWidth") > 0
    unsafe.get_by_role("button", name="Show response").first.click()
    assert unsafe.locator(".answer .veil-content").count() == 1
    assert unsafe.locator(".answer").first.locator(".said").inner_text() == "text alone says 1"
    unsafe.get_by_role("button", name="Show image").click()
    assert unsafe.locator(".image .veil-content").count() == 0
    safe = shown(page).first
    assert safe.locator(".answer .veil-content").count() == 0
    assert safe.locator(".request").first.inner_text() == "question 0"


def test_requests_that_tell_of_harm_are_blurred_too(opened):
    page = opened()
    page.locator("#filters").get_by_label("Benchmark").select_option("leaky")
    until(page, lambda: shown(page).first.locator(".meta").first.inner_text().startswith("leaky"))
    assert shown(page).first.get_by_role("button", name="Show request").is_visible()
    page.locator("#filters").get_by_label("show unsafe text").check()
    until(page, lambda: page.locator("#list .veiled:not(.image .veiled)").count() == 0)
    assert shown(page).first.get_by_role("button", name="Show request").count() == 0


def test_all_at_once_on_request(opened):
    page = opened()
    page.locator("#filters").get_by_label("show images").check()
    page.locator("#filters").get_by_label("show unsafe text").check()
    until(page, lambda: page.locator("#list .veil-content").count() == 0)


def test_filters_by_set_category_verdict_method_words_and_difference(opened):
    page = opened()

    def found(expected):
        until(page, lambda: page.locator("#status").inner_text().startswith(f"{expected} of 90 items."))

    page.locator("#filters").get_by_label("Category").select_option("water")
    found(15)
    assert {"water" in text for text in page.locator("#list .meta").all_inner_texts()} == {True}
    page.locator("#filters").get_by_label("Verdict on the first").select_option("refusal")
    found(0)  # the odd ones are water, and unsafe
    page.locator("#filters").get_by_label("Category").select_option("fire")
    found(15)
    page.locator("#filters").get_by_label("Words").fill("SAYS 12")
    found(1)
    page.locator("#filters").get_by_label("Words").fill("")
    page.locator("#filters").get_by_label("only where the two verdicts differ").check()
    found(0)
    page.locator("#filters").get_by_label("only where the two verdicts differ").uncheck()
    page.locator("#filters").get_by_label("Benchmark").select_option("all")
    page.locator("#filters").get_by_label("Category").select_option("any")
    page.locator("#filters").get_by_label("Verdict on the first").select_option("any")
    found(90)
    page.locator("#f-first").select_option("MM-SFT")
    page.locator("#filters").get_by_label("Compare with").select_option("nothing")
    until(page, lambda: shown(page).first.locator(".answer").count() == 1)
    assert "MM-SFT" in shown(page).first.locator(".who").inner_text()


def test_pages_turn(opened):
    page = opened()
    assert page.locator("#place").inner_text() == "1-20 of 30"
    page.get_by_role("button", name="Next").click()
    assert page.locator("#place").inner_text() == "21-30 of 30"
    assert shown(page).count() == 10
    assert page.get_by_role("button", name="Next").is_disabled()


def test_planted_markup_stays_text(opened):
    page = opened()
    page.locator("#filters").get_by_label("Compare with").select_option(f"MM-{PLANTED[1]}")
    page.locator("#filters").get_by_label("show unsafe text").check()
    until(page, lambda: page.locator("#list .veil-content").count() == page.locator("#list .image").count())
    said = shown(page).first.locator(".answer").nth(1).locator(".said").inner_text()
    assert PLANTED[0] in said
    assert PLANTED[1] in said
    assert page.title() == "Does alignment on text alone protect when the danger is only in the image?"
    assert page.locator("#list img:not([src^='data:'])").count() == 0
    assert page.evaluate("document.scripts.length") == 2


def test_a_script_that_was_planted_all_the_same_would_not_run(browser, report):
    """The page says which script may run, by its hash; whatever came past the escaping would stand there dead."""
    page, said = browser.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.goto(report.as_uri())
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p id=planted onclick=\"document.title=1\">x</p>')")
    page.evaluate("document.getElementById('planted').click()")
    until(page, lambda: said)
    assert "Content Security Policy" in said[0]
    assert page.title() != "1"
    page.close()


def test_by_keyboard_alone(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answer"
    page.locator("#f-category").focus()
    page.keyboard.press("ArrowDown")
    until(page, lambda: page.locator("#status").inner_text().startswith("15 of 90"))
    button = (
        shown(page)
        .filter(has=page.get_by_role("button", name="Show image"))
        .first.get_by_role("button", name="Show image")
    )
    button.focus()
    page.keyboard.press("Enter")
    assert shown(page).first.locator(".image .veil-content").count() == 0
    assert page.evaluate("document.activeElement.tagName") == "IMG"  # where the button was, and not at the page's top
    summary = page.locator("details.table summary").nth(1)
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details.table").nth(1).get_attribute("open") is not None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window_and_text_can_be_read(opened, scheme, width):
    page = opened(viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    weak = page.evaluate(CONTRAST)
    assert weak == []


CONTRAST = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = c.map((v) => v / 255).map((v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4));
    return .2126 * r + .7152 * g + .0722 * b; };
  const over = (top, bottom) => { const a = top.length > 3 ? top[3] : 1; return [0, 1, 2].map((i) => a * top[i] + (1 - a) * bottom[i]); };
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const own = numbers(getComputedStyle(element).backgroundColor);
    return own.length > 3 && own[3] === 0 ? ground(element.parentElement) : own.length > 3 ? over(own, ground(element.parentElement)) : own;
  };
  const weak = [];
  document.querySelectorAll('p, li, td, th, dt, dd, summary, a, label, h1, h2, figcaption, .verdict, svg text').forEach((element) => {
    if (!element.textContent.trim() || !element.getClientRects().length || element.closest('.veiled')) return;
    const style = getComputedStyle(element);
    const ink = numbers(element.namespaceURI.endsWith('svg') ? style.fill : style.color);
    const [a, b] = [light(over(ink, ground(element))), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) weak.push(`${element.tagName} ${element.textContent.slice(0, 40)} ${ratio.toFixed(2)}`);
  });
  return [...new Set(weak)].slice(0, 12);
}"""
"""Elements whose text has less contrast to what is behind it than WCAG asks for (4.5 to 1)."""


def test_the_colours_can_be_changed(opened):
    page = opened(color_scheme="light")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == before


def test_on_paper_everything_is_open_and_nothing_unsafe_is_shown(opened):
    page = opened(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").evaluate("one => getComputedStyle(one).display") == "none"
    assert page.locator("#list .veil-content").count() > 0
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0


def test_a_thought_is_folded_and_blurred_until_asked_for_if_the_request_is_harmful(browser, tmp_path):
    it = answered(tmp_path / "runs" / "t", tmp_path / "images", n=30)
    for name in ("free", "benign"):
        file = it.evaluation / name / "responses.jsonl"
        told = [json.loads(line) | {"thought": EVIL, "thought_cut": True} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(line) + "\n" for line in told))
    assert main(["report", f"runs={tmp_path / 'runs'}"]) == 0
    page = browser.new_page()
    page.goto((tmp_path / "runs" / "report.html").as_uri())
    first = shown(page).first
    thought = first.locator("details.thought")
    assert thought.get_attribute("open") is None
    assert first.locator(".answer .verdict").first.inner_text() == "refusal"  # the verdict is on the answer alone
    thought.locator("summary").click()
    assert "blur" in thought.locator(".veil-content").evaluate("one => getComputedStyle(one).filter")
    thought.get_by_role("button", name="Show thought").click()
    assert thought.locator(".veil-content").count() == 0
    assert thought.locator(".said").inner_text().strip() == EVIL.strip()
    assert "generation.thinking=budget" in thought.locator(".reason").inner_text()
    page.locator("#filters").get_by_label("Benchmark").select_option("benign")
    until(page, lambda: shown(page).first.locator(".meta").first.inner_text().startswith("benign"))
    assert shown(page).first.locator("details.thought .veil-content").count() == 0
    assert page.title() != "owned"
    page.close()
