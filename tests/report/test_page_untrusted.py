"""A page of another person's folder: what it holds is shown as text, and no other file is read."""

import json
import os
import re

from align.files import write_json
from tests.support.answered_runs import answered
from tests.support.pages import EVIL, PLANTED, page_of


def test_nothing_that_somebody_wrote_is_more_than_text(tmp_path):
    quiet = {"name": EVIL, "view": "image", "model": EVIL, "variant": {EVIL: EVIL}, "git_commit": EVIL, "base": EVIL}
    quiet |= {"command": ["align", EVIL], "stopped": EVIL, "tuning": EVIL}
    it = answered(
        tmp_path / "runs" / "a", tmp_path / "images", EVIL.replace("{", "{{").replace("}", "}}"), EVIL, "{{}}" + PLANTED[1],
        categories=[EVIL, "b"] * 10, **quiet,
    )  # fmt: skip
    summary = it.evaluation / "free" / "summary.rule.json"
    write_json(summary, json.loads(summary.read_text()) | {"facts": [EVIL]})
    text, parsed, payload = page_of(tmp_path / "runs", f"title={PLANTED[0]}")
    assert [attributes for tag, attributes in parsed.elements if tag == "img"] == []
    executed = [script for attributes, script in parsed.scripts if attributes.get("type") != "application/json"]
    assert len(executed) == 1
    assert "owned" not in executed[0]
    assert not any(key.startswith("on") for _, attributes in parsed.elements for key in attributes)
    assert parsed.text.count("document.title='owned'") > 10  # it is there to be read
    assert payload["answers"][0][0][0] == EVIL
    assert "49" not in re.sub(r"[^{}0-9 *]", "", parsed.text).split()
    assert text.count("</script>") == 2


def test_nothing_that_a_folder_names_is_imported(tmp_path, monkeypatch):
    """The name of a set is the name of a folder, which may be somebody else's; an image that is no
    file is made by our own sets alone.
    """
    it = answered(tmp_path / "runs" / "a", tmp_path / "images")
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path(__file__).with_name('owned').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (it.evaluation / "free").rename(it.evaluation / "evil:X")
    rows = [json.loads(line) for line in (it.evaluation / "evil:X" / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        row["images"][0]["path"] = None
    (it.evaluation / "evil:X" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page_of(tmp_path / "runs")
    assert not (tmp_path / "owned").exists()


def test_no_file_is_shown_that_is_not_known_to_be_what_the_model_saw(tmp_path):
    """Else a folder of somebody's could have any image of this machine put into a page, or wait for a pipe for ever."""
    it = answered(tmp_path / "runs" / "a", tmp_path / "images")
    os.mkfifo(tmp_path / "pipe")
    rows = [json.loads(line) for line in (it.evaluation / "free" / "rows.jsonl").read_text().splitlines()]
    rows[0]["images"][0]["pixels"] = None
    rows[1]["images"][0] |= {"path": str(tmp_path / "pipe"), "pixels": "0" * 64}
    (it.evaluation / "free" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, _, payload = page_of(tmp_path / "runs")
    why = {item["id"]: item["why"] for item in payload["items"] if item["set"] == 1}
    assert why["0"] == "not shown: the hash of its pixels was not stored"
    assert why["1"] == "image not available: its file does not exist"


def test_odd_verdicts_and_answers_are_text_to_the_page(tmp_path):
    it = answered(tmp_path / "runs" / "a", tmp_path / "images")
    for file, key in (("verdicts.rule.jsonl", "verdict"), ("responses.jsonl", "response")):
        place = it.evaluation / "free" / file
        lines = [
            json.loads(line) | {key: odd}
            for line, odd in zip(place.read_text().splitlines(), ["", None, 5, ["x"]] * 5, strict=True)
        ]
        place.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, _, payload = page_of(tmp_path / "runs")
    answers = [answer for item, answer in zip(payload["items"], payload["answers"][0], strict=True) if item["set"] == 1]
    assert all(isinstance(answer[1], str) and isinstance(answer[0], str | None) for answer in answers)
