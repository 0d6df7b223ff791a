"""Pages of reports as a browser would read them, and texts that contain markup and scripts."""

import json
from html.parser import HTMLParser

from align.cli import main
from tests.support.answered_runs import answered

PLANTED = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</script><script>document.title='owned'</script>",
    "<!--",
    "{{ 7 * 7 }}{% raw %}",
    "\u2028&lt;'",
)
EVIL = " ".join(PLANTED)


class Elements(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, its text, and what stands in scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.scripts, self._inside = [], "", [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        else:
            self.text += data


def page_of(folder, *more):
    """(The page, its elements, what its browser of examples reads)."""
    assert main(["report", f"runs={folder}", *more]) == 0
    text = (folder / "report.html").read_text()
    parsed = Elements(text)
    (payload,) = [json.loads(script) for attributes, script in parsed.scripts if attributes.get("id") == "payload"]
    return text, parsed, payload


def two_runs(folder):
    answered(folder / "runs" / "t", folder / "images", answer="text alone says {i}")
    answered(folder / "runs" / "mm", folder / "images", answer="with images {i}", name="mm_sft", view="image")
    return folder / "runs"
