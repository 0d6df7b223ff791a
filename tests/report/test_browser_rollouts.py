"""Samples of rollouts in a real browser: blurred until asked for, one by one, by keyboard too."""

from tests.report.test_page_rollouts import two_runs
from tests.support.browser import chromium
from tests.support.pages import page_of


def test_a_blurred_sample_is_shown_when_asked_for(tmp_path):
    runs = two_runs(tmp_path)
    page_of(runs)
    with chromium() as browser:
        page, said = browser.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((runs / "report.html").as_uri())
        page.locator("#rollouts summary").click()
        veiled = page.locator("#rollouts .veiled")
        assert veiled.count() == 4
        page.get_by_role("button", name="Show response").first.press("Enter")
        assert veiled.count() == 3
        shown = page.locator("#rollouts .answer .said").first
        assert shown.inner_text() == "how to answered"
        assert shown.evaluate("element => getComputedStyle(element).filter") == "none"
        assert veiled.first.locator(".veil-content").evaluate("element => getComputedStyle(element).filter") != "none"
        assert said == []
