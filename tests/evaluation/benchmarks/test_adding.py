"""The benchmark of docs/adding.md, as it stands there."""

import re
import textwrap
from pathlib import Path

import pytest

from align.errors import UserError
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings
from tests.support.layouts import HARMS, counted, summaries, write_image, write_json, zipped

PAGE = (Path(__file__).parents[3] / "docs" / "adding.md").read_text(encoding="utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n(?=\n*    ))+", PAGE, re.MULTILINE)]
EXAMPLE = next(block for block in BLOCKS if "KETTLES = " in block)
COMMAND = next(block for block in BLOCKS if "benchmark=mine:KETTLES" in block)


@pytest.fixture
def kettles(tmp_path, monkeypatch):
    """The module and the folder that the page speaks of, one image absent."""
    (tmp_path / "mine.py").write_text(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    record = {"question": "May I fill it?", "kind": "iron", "source": "attic"}
    rows = [record | {"id": i, "image": f"{min(i, 2)}.png"} for i in (1, 2, 3)]
    write_json(tmp_path / "kettles" / "kettles.json", rows)
    write_image(tmp_path / "kettles" / "images" / "1.png")
    return tmp_path / "kettles"


def test_the_pages_benchmark_runs_with_the_pages_command(kettles, capsys):
    setting, program, *arguments = COMMAND.split()
    assert (setting, program, arguments[0]) == ("PYTHONPATH=.", "align", "data")
    assert arguments[-1] == "summary=true"
    (found,) = summaries(capsys, *arguments[1:-1])
    assert counted(found) == {
        "rows": 3,
        "roles": {"harmful": 3, "benign": 0},
        "harm_in": HARMS | {"image": 3},
        "images": 2,
        "missing_images": 1,
        "categories": {"iron": 3},
        "facts": ["kettles: 3 rows found, 300 are published", "kettles: 1 categories found, 2 are published"],
    }


def test_what_the_page_says_comes_with_it_does(kettles):
    settings = BenchmarkSettings(path=str(zipped(kettles)), where={"source": "attic"}, limit=2, limit_order="first")
    chosen = select_rows("mine:KETTLES", "text", settings)
    assert (chosen.name, [row.id for row in chosen.rows]) == ("kettles.text", ["1", "2"])
    kettles.mkdir()
    write_json(kettles / "kettles.json", [{"id": 1, "image": "1.png", "kind": "iron"}])
    with pytest.raises(
        UserError, match=r"kettles.json, row 1: `question` is absent; found the columns id, image, kind"
    ):
        select_rows("mine:KETTLES", "text", BenchmarkSettings(path=str(kettles)))


def test_the_page_keeps_its_promise_of_brevity():
    assert len([line for line in EXAMPLE.splitlines() if line.strip()]) < 30
