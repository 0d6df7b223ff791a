"""Published sets from their published layouts; the real files where they are at hand."""

import csv
import json

import pytest
from PIL import Image

from align.cli import main
from align.errors import UserError
from align.evaluation.benchmarks.safebench import PROMPT
from align.evaluation.selection import select_rows, settings_of
from align.settings import BenchmarkSettings, EvalConfig
from tests.support.published import mssbench


def test_the_real_vlsbench_has_its_published_counts(shared):
    chosen = select_rows("vlsbench", "text", BenchmarkSettings(path=str(shared / "data" / "vlsbench")))
    assert len(chosen.rows) == 2241
    # As many rows, images and categories as are published; of one the text is empty in the published file.
    assert chosen.facts == ["vlsbench: 1 rows have no text, first 1685"]
    assert len({row.cluster for row in chosen.rows}) == 1957
    assert len({row.prompt for row in chosen.rows}) == 2226
    assert len({row.category for row in chosen.rows}) == 6
    assert len({row.columns["sub_category"] for row in chosen.rows}) == 19


def test_the_real_vlsbenchs_absent_images_are_counted_and_named(shared):
    settings = BenchmarkSettings(path=str(shared / "data" / "vlsbench"))
    with pytest.raises(UserError, match=r"2241 of 2241 rows lack their image; 1957 files absent: .*0\.png"):
        select_rows("vlsbench", "image", settings)
    settings.on_missing_image = "drop"
    with pytest.raises(UserError, match="No row of benchmark vlsbench is left"):
        select_rows("vlsbench", "image", settings)


def test_the_real_safebench_tiny_has_fifty_rows_with_images(shared):
    folder = str(shared / "data" / "figstep")
    tiny = select_rows("safebench", "image", BenchmarkSettings(path=folder, subset="tiny"))
    assert len(tiny.rows) == 50
    assert {row.prompt for row in tiny.rows} == {PROMPT}
    assert len(select_rows("safebench", "text", BenchmarkSettings(path=folder)).rows) == 500
    kept = select_rows("safebench", "image", BenchmarkSettings(path=folder, subset="tiny", where={"task_id": [4, 5]}))
    assert sorted({row.columns["task_id"] for row in kept.rows}) == ["4", "5"]
    assert len(kept.rows) == 20


@pytest.fixture
def vlsbench(tmp_path):
    """Two rows in the published layout, one without its image."""
    (tmp_path / "imgs").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "imgs" / "0.png")
    record = {
        "instruction": "What is this?",
        "category": "Illegal Activity",
        "sub_category": "Cybercrime",
        "source": "generation",
    }
    rows = [record | {"instruction_id": i, "image_path": f"imgs/{i}.png"} for i in range(2)]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    return tmp_path


def test_rows_without_image_are_left_out_on_request_and_kept_as_a_fact(vlsbench):
    chosen = select_rows("vlsbench", "image", BenchmarkSettings(path=str(vlsbench), on_missing_image="drop"))
    assert [row.id for row in chosen.rows] == ["0"]
    assert "1 of 2 rows lack their image" in chosen.facts[-1]


def test_the_text_view_needs_no_image_and_has_a_name_of_its_own(vlsbench):
    chosen = select_rows("vlsbench", "text", BenchmarkSettings(path=str(vlsbench)))
    assert (chosen.name, len(chosen.rows)) == ("vlsbench.text", 2)
    assert chosen.facts[0] == "vlsbench: 2 rows found, 2241 are published"
    assert all(row.images == () for row in chosen.rows)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "benchmark vlsbench: .*give path=<folder, file or zip archive>, path=Foreshhh/vlsbench"),
        ({"path": "/nowhere"}, "path=/nowhere does not exist"),
        ({"where": {"colour": "red"}}, "where.colour: row 0 has no such column. .*: category, sub_category"),
        ({"where": {"category": "None"}}, "where.category: no row has None. Found: Illegal Activity"),
    ],
)
def test_what_cannot_be_selected_is_named(vlsbench, settings, expected):
    path = {} if settings == {} else {"path": str(vlsbench)}
    with pytest.raises(UserError, match=expected):
        select_rows("vlsbench", "text", BenchmarkSettings(**(path | settings)))


def test_a_sets_own_column_is_meant_where_every_row_has_one_of_that_name(vlsbench):
    settings = BenchmarkSettings(path=str(vlsbench), where={"source": "generation"})
    assert [row.source for row in select_rows("vlsbench", "text", settings).rows] == ["vlsbench", "vlsbench"]


def test_an_unknown_benchmark_and_view_name_the_nearest_ones():
    with pytest.raises(UserError, match="benchmark=vlsbnch: unknown .did you mean 'vlsbench'"):
        select_rows("vlsbnch", "image", BenchmarkSettings())
    with pytest.raises(UserError, match="view=pixels: expected one of image, text"):
        select_rows("mini_vsil", "pixels", BenchmarkSettings())


def test_a_safebench_without_a_column_is_an_error(tmp_path):
    with (tmp_path / "safebench.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["dataset", "category_id"], ["ForbidQI", "1"]])
    with pytest.raises(
        UserError, match=r"safebench.csv, row 1: `task_id` is absent; found the columns dataset, category_id"
    ):
        select_rows("safebench", "text", BenchmarkSettings(path=str(tmp_path)))


@pytest.mark.usefixtures("own_folder")
def test_ids_that_stand_twice_are_refused(tmp_path, capsys):
    rows = [
        {"instruction_id": 1, "instruction": f"q{i}", "image_path": f"{i}.png", "category": "c", "sub_category": "s"}
        for i in (0, 1)
    ]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    nobody = ["generation.base_url=http://127.0.0.1:9/v1", "generation.model=x"]
    assert main(["eval", *nobody, "benchmark=vlsbench", "path=data.json", "view=text", "judge=refusal_match"]) == 2
    assert "data.json: 1 ids occur twice, first '1'" in capsys.readouterr().err


def test_what_is_said_of_a_part_goes_over_what_is_said_of_its_set():
    config = EvalConfig(
        benchmark=["xstest_safe", "xstest_unsafe"],
        settings={"xstest": BenchmarkSettings(path="x", limit=5), "xstest_safe": BenchmarkSettings(limit=1)},
    )
    assert settings_of(config, "xstest_safe") == BenchmarkSettings(path="x", limit=1)
    assert settings_of(config, "xstest_unsafe") == BenchmarkSettings(path="x", limit=5)
    config.settings["xstets_safe"] = BenchmarkSettings(limit=1)
    with pytest.raises(UserError, match="settings.xstets_safe: .*xstets_safe .did you mean 'xstest_safe'"):
        settings_of(config, "xstest_safe")


def test_a_pair_of_which_one_image_is_absent_is_left_out_whole(tmp_path):
    mssbench(tmp_path)
    (tmp_path / "chat" / "library.png").unlink()
    settings = BenchmarkSettings(path=str(tmp_path), on_missing_image="drop")
    chosen = select_rows("mssbench", "image", settings)
    assert {row.twin for row in chosen.rows} == {"embodied-1-1", "embodied-1-2"}
    assert "2 of 8 rows lack their image" in chosen.facts[-1]
    assert chosen.facts[-1].endswith("; 2 rows left out whose twin lacks its image")


def test_short_forms_are_for_one_benchmark():
    both = EvalConfig(benchmark=["vlsbench", "safebench"], path="x")
    with pytest.raises(UserError, match=r"path=: 2 benchmarks are named.* settings.<benchmark>.path= for each"):
        settings_of(both, "vlsbench")
    one = EvalConfig(benchmark=["vlsbench"], path="x", limit=3, settings={"vlsbench": BenchmarkSettings(subset="s")})
    assert settings_of(one, "vlsbench") == BenchmarkSettings(path="x", subset="s", limit=3)


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ({"role": "harmful", "harm_in": "image", "image": "a.png"}, "vsil_free"),
        ({"role": "harmful", "harm_in": "both", "image": "a.png"}, "vsil"),
        ({"role": "harmful"}, "vsil"),
        ({"role": "benign"}, "benign"),
    ],
)
def test_a_local_file_is_a_benchmark_of_the_kind_that_its_rows_are(tmp_path, record, kind):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "mine.jsonl").write_text(json.dumps({"prompt": "p"} | record) + "\n")
    chosen = select_rows("local", "image", BenchmarkSettings(path=str(tmp_path / "mine.jsonl")))
    assert (chosen.benchmark.kind, chosen.rows[0].prompt) == (kind, "p")


def test_one_rate_cannot_speak_for_rows_of_several_kinds(tmp_path):
    rows = [{"prompt": "p", "role": "harmful"}, {"prompt": "q", "role": "benign"}]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = BenchmarkSettings(path=str(tmp_path / "mine.jsonl"))
    with pytest.raises(UserError, match="its rows are of several kinds .benign, vsil."):
        select_rows("local", "image", settings)
    settings.where = {"role": "benign"}
    assert len(select_rows("local", "image", settings).rows) == 1


@pytest.mark.parametrize("settings", [{"subset": "train"}, {"subset": "x"}, {"path": "somewhere"}, {"limit": -1}])
def test_a_setting_that_means_nothing_to_the_miniature_is_refused(settings):
    with pytest.raises(UserError, match="mini_vsil: "):
        select_rows("mini_vsil", "image", BenchmarkSettings(**settings))
