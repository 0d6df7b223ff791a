"""`align data benchmark=all`: which published benchmarks are available, whichever of them are absent or broken."""

import json
import re

import pytest

from align.cli import main
from align.config.registry import BENCHMARKS
from tests.support.layouts import write_csv, write_image, write_json, zipped

OWN = {"mini_vsil", "mini_vsil_free", "mini_benign", "mini_twin", "mini_ability", "local", "conversations"}
OWN |= {"twins", "twins_vsil", "twins_vsil_free", "twins_benign"}
"""Benchmarks without published files."""


@pytest.fixture
def data_root(tmp_path, monkeypatch):
    """MOSSBench in a folder with one image absent, XSTest in an archive, a SIUO without a column."""
    monkeypatch.delenv("VSIL_ALIGN_DATA", raising=False)
    root = tmp_path / "data"
    scene = {"question": "What is this?", "metadata": {"over": "type 1"}}
    scenes = {str(i): scene | {"pid": str(i), "image": f"images/{i}.png"} for i in (1, 2)}
    write_json(root / "mossbench" / "information.json", scenes)
    write_image(root / "mossbench" / "images" / "1.png")
    prompts = [("safe", "homonyms"), ("safe", "homonyms"), ("unsafe", "contrast_homonyms")]
    rows = [{"id": i, "prompt": f"Tea, {i}?", "type": kind, "label": label} for i, (label, kind) in enumerate(prompts)]
    write_csv(root / "xstest" / "xstest_prompts.csv", rows)
    zipped(root / "xstest")
    write_json(root / "siuo" / "siuo_gen.json", [{"question_id": 1, "image": "1.png"}])
    return root


def look(capsys, *words):
    """(exit status, {benchmark: what is said of it})"""
    status = main(["data", "benchmark=all", *words, "summary=true"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return status, {one.pop("benchmark"): one for one in found}


def test_every_published_benchmark_is_available_unreadable_or_absent(data_root, capsys):
    status, found = look(capsys, f"data_root={data_root}")
    assert (status, set(found)) == (0, set(BENCHMARKS) - OWN)
    there = {name: one for name, one in found.items() if one["state"] != "absent"}
    error = there.pop("siuo")
    assert error.pop("error").endswith(
        "siuo_gen.json, row 1: `question` is absent; found the columns question_id, image"
    )
    assert error == {"state": "unreadable", "path": f"{data_root}/siuo"}
    assert there == {
        "mossbench": {
            "state": "available",
            "path": f"{data_root}/mossbench",
            "rows": 2,
            "images": 2,
            "missing_images": 1,
            "facts": ["mossbench: 2 rows found, 300 are published", "mossbench: 1 categories found, 3 are published"],
        },
        "xstest_safe": {
            "state": "available",
            "path": f"{data_root}/xstest.zip",
            "rows": 2,
            "images": 0,
            "missing_images": 0,
            "facts": ["xstest_safe: 2 rows found, 250 are published"],
        },
        "xstest_unsafe": {
            "state": "available",
            "path": f"{data_root}/xstest.zip",
            "rows": 1,
            "images": 0,
            "missing_images": 0,
            "facts": ["xstest_unsafe: 1 rows found, 200 are published"],
        },
    }
    assert found["vlsbench"] == {
        "state": "absent",
        "looked_for": [f"{data_root}/vlsbench", f"{data_root}/vlsbench.zip"],
    }
    assert found["msts_text"]["looked_for"] == [f"{data_root}/msts", f"{data_root}/msts.zip"]


def test_the_same_in_words(data_root, capsys):
    assert main(["data", "benchmark=all", f"data_root={data_root}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    n = len(BENCHMARKS) - len(OWN)
    assert lines[0].startswith(f"available: 3 of {n} benchmarks. Images were looked for, not decoded")
    assert lines[1:3] == [
        f"  mossbench: 2 rows, 2 images, 1 of them missing; {data_root}/mossbench",
        "    mossbench: 2 rows found, 300 are published",
    ]
    assert f"unreadable: 1 of {n} benchmarks" in lines
    assert f"  vlsbench: looked for {data_root}/vlsbench and {data_root}/vlsbench.zip" in lines
    assert any(line.startswith(f"absent: {n - 4} of {n} benchmarks. Put them where") for line in lines)


def test_a_benchmark_elsewhere_is_found_by_its_settings(data_root, capsys):
    path = (data_root / "mossbench").rename(data_root.parent / "scenes")
    status, found = look(capsys, f"settings.mossbench.path={path}")
    assert (status, found["mossbench"]["rows"], found["xstest_safe"]) == (0, 2, {"state": "absent"})


def test_validate_ends_with_status_1_for_what_is_broken_and_not_for_what_is_absent(data_root, capsys):
    words = (f"data_root={data_root}", "validate=true")
    assert look(capsys, *words)[0] == 1  # SIUO cannot be read, MOSSBench lacks an image
    (data_root / "siuo" / "siuo_gen.json").unlink()
    (data_root / "siuo").rmdir()
    assert look(capsys, *words)[0] == 1
    write_image(data_root / "mossbench" / "images" / "2.png")
    assert look(capsys, *words)[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["benchmark=all"], "benchmark=all: no place to look. Give data_root="),
        (["benchmark=all,siuo", "data_root=."], "benchmark=all,siuo: `all` takes no other names"),
        (["benchmark=all", "data_root=.", "limit=3"], "limit= does not go with benchmark=all"),
        (["benchmark=all", "data_root=.", "source=vlguard"], "source= does not go with benchmark=all"),
        (["benchmark=all", "data_root=absent"], "data_root=absent: not a folder"),
        (
            ["benchmark=all", "data_root=.", "settings.suio.path=x"],
            "settings.suio: no benchmark is named suio .did you mean",
        ),
    ],
)
def test_what_it_cannot_do_is_said(monkeypatch, tmp_path, capsys, words, said):
    monkeypatch.delenv("VSIL_ALIGN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["data", *words]) == 2
    assert re.search(said, capsys.readouterr().err)
