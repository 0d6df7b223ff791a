"""Links that the user made, and several folders of images: looked up where they are told, and never
outside by themselves.
"""

import json

import pytest

from align.commands.data import main as data
from align.config.compose import compose_eval, compose_run
from align.data.assembly import read_source
from align.data.images import load_image
from align.errors import UserError
from align.evaluation.selection import select_rows, settings_of
from align.settings import BenchmarkSettings, Part
from align.training.preflight import missing
from tests.support.odd_images import png
from tests.support.published import write_jsonl
from tests.support.set_files import write_tar, write_zip

RED = (200, 10, 10)


@pytest.fixture
def coco(tmp_path):
    """COCO's images in a place of their own, and a set whose folder `coco` is a link to it."""
    (tmp_path / "shared" / "coco" / "train2017").mkdir(parents=True)
    (tmp_path / "shared" / "coco" / "train2017" / "1.png").write_bytes(png(*RED))
    (tmp_path / "shared" / "secret.png").write_bytes(png(1, 2, 3))
    write(tmp_path / "set", "coco/train2017/1.png")
    (tmp_path / "set" / "coco").symlink_to(tmp_path / "shared" / "coco")
    return tmp_path / "set"


def write(folder, *images):
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "rows.jsonl", *({"prompt": "What?", "role": "benign", "image": name} for name in images))


def shown(**settings):
    rows = read_source(Part(**settings)).rows
    return [load_image(row.images[0], row.id).getpixel((0, 0)) for row in rows]


# Links


def test_a_link_out_of_the_folder_is_named_with_the_option_that_allows_it(coco):
    with pytest.raises(UserError) as error:
        read_source(Part(path=str(coco)))
    said = str(error.value)
    assert "rows.jsonl, row 1" in said
    assert f"{coco / 'coco'} is a link to {coco.parent / 'shared' / 'coco'}" in said
    assert "follow_links=true" in said


def test_a_link_is_followed_where_the_user_allows_it(coco):
    assert shown(path=str(coco), follow_links=True) == [RED]
    assert shown(path=str(coco), image_root=str(coco), follow_links=True) == [RED]
    settings = BenchmarkSettings(path=str(coco / "rows.jsonl"), follow_links=True)
    assert len(select_rows("local", "image", settings).rows) == 1


@pytest.mark.parametrize(
    "name",
    [
        "../shared/secret.png",
        "coco/../../shared/secret.png",
        "{shared}/secret.png",
        "coco/train2017/../../../shared/secret.png",
    ],
)
def test_a_path_itself_leads_nowhere_outside_whatever_is_allowed(coco, name):
    write(coco, name.format(shared=coco.parent / "shared"))
    with pytest.raises(UserError, match=r"row 1: image path .* leads outside its folder"):
        shown(path=str(coco), follow_links=True)


def test_dots_behind_a_link_stay_in_the_set(coco):
    """`coco/../secret.png` is secret.png of the set, and not of the folder that holds what the link leads to."""
    write(coco, "coco/../secret.png")
    (coco / "secret.png").write_bytes(png(7, 7, 7))
    assert shown(path=str(coco), follow_links=True) == [(7, 7, 7)]


def test_an_index_and_an_archive_that_are_links_are_named_and_may_be_allowed(tmp_path):
    write(tmp_path / "set", "imgs/1.png")
    (tmp_path / "set" / "rows.jsonl").rename(tmp_path / "there.jsonl")
    (tmp_path / "set" / "rows.jsonl").symlink_to(tmp_path / "there.jsonl")
    write_tar({"imgs/1.png": png(*RED)}, tmp_path / "there.tar")
    (tmp_path / "set" / "imgs.tar").symlink_to(tmp_path / "there.tar")
    with pytest.raises(UserError, match=r"set/rows.jsonl is a link to .*there.jsonl.*follow_links=true"):
        shown(path=str(tmp_path / "set"))
    with pytest.raises(UserError, match=r"set/imgs.tar is a link to .*there.tar.*follow_links=true"):
        shown(path=str(tmp_path / "set" / "rows.jsonl"))
    assert shown(path=str(tmp_path / "set"), follow_links=True) == [RED]


def test_links_are_an_option_of_parts_benchmarks_and_the_command_line(coco, capsys):
    assert data(["source=local", f"path={coco}", "summary=true", "follow_links=true"]) == 0
    assert json.loads(capsys.readouterr().out)["missing_images"] == 0
    assert data(["benchmark=local", f"path={coco / 'rows.jsonl'}", "summary=true", "follow_links=true"]) == 0
    run = compose_run(["recipe=mm_sft", "data.own.path=x", "data.own.follow_links=true"]).config
    assert run.data["own"].follow_links
    config = compose_eval(["model=mini_llava", "benchmark=local", "settings.local.follow_links=true"]).config
    assert settings_of(config, "local").follow_links


# Several roots


@pytest.fixture
def five(tmp_path):
    """LLaVA-665k's five folders, each in a place of its own."""
    places = ("coco/train2017", "gqa/images", "ocr_vqa/images", "textvqa/train_images", "vg/VG_100K")
    for shade, place in enumerate(places):
        folder = tmp_path / f"disk{shade}" / place
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(png(shade, 0, 0))
    write(tmp_path / "set", *(f"{place}/1.png" for place in places))
    return tmp_path, places


def test_images_are_looked_up_in_each_root(five):
    folder, _ = five
    roots = [str(folder / f"disk{i}") for i in range(5)]
    assert shown(path=str(folder / "set"), image_root=roots) == [(i, 0, 0) for i in range(5)]


def test_a_root_may_be_the_innermost_folder_that_the_paths_name(five):
    folder, places = five
    roots = [str(folder / f"disk{i}" / place) for i, place in enumerate(places)]
    assert shown(path=str(folder / "set"), image_root=roots) == [(i, 0, 0) for i in range(5)]
    write(folder / "set", "coco/train2017/1.png")
    assert shown(path=str(folder / "set"), image_root=roots[0]) == [(0, 0, 0)]


def test_a_root_may_be_a_zip_archive(five):
    folder, places = five
    write_zip({"train2017/1.png": png(0, 0, 0)}, folder / "coco.zip")
    roots = [str(folder / "disk4"), str(folder / "coco.zip")]
    write(folder / "set", "train2017/1.png", f"{places[4]}/1.png")
    assert shown(path=str(folder / "set"), image_root=roots) == [(0, 0, 0), (4, 0, 0)]


def test_a_name_in_two_roots_is_an_error_unless_it_is_one_file(five):
    folder, _ = five
    write(folder / "set", "coco/train2017/1.png")
    (folder / "disk1" / "coco").symlink_to(folder / "disk0" / "coco")
    roots = [str(folder / "disk0"), str(folder / "disk1")]
    assert shown(path=str(folder / "set"), image_root=roots, follow_links=True) == [(0, 0, 0)]
    (folder / "disk1" / "coco").unlink()
    (folder / "disk1" / "coco" / "train2017").mkdir(parents=True)
    (folder / "disk1" / "coco" / "train2017" / "1.png").write_bytes(png(9, 9, 9))
    with pytest.raises(
        UserError, match=r"row 1: image path 'coco/train2017/1.png' is in several image roots.*disk0.*disk1"
    ):
        shown(path=str(folder / "set"), image_root=roots)


def test_an_image_in_no_root_is_absent_and_one_outside_is_refused(five):
    folder, _ = five
    roots = [str(folder / "disk0"), str(folder / "disk1")]
    write(folder / "set", "coco/train2017/2.png")
    (row,) = read_source(Part(path=str(folder / "set"), image_root=roots)).rows
    assert row.images[0].path == str(folder / "disk0" / "coco" / "train2017" / "2.png")
    write(folder / "set", "../disk2/ocr_vqa/images/1.png")
    with pytest.raises(UserError, match="leads outside its folder"):
        shown(path=str(folder / "set"), image_root=roots)


def test_roots_are_listed_in_arguments_and_files(five, capsys):
    folder, _ = five
    roots = ",".join(str(folder / f"disk{i}") for i in range(5))
    assert data(["source=local", f"path={folder / 'set'}", f"image_root={roots}", "summary=true"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["images"], summary["missing_images"]) == (5, 0)
    config = compose_run(["recipe=mm_sft", "data.own.path=x", f"data.own.image_root={roots},nowhere"]).config
    assert config.data["own"].image_root == [*roots.split(","), "nowhere"]
    assert [line for line in missing(config) if line.startswith("data.own.image_root=nowhere: does not exist here")]


def test_a_root_that_is_not_there_is_named(five):
    folder, _ = five
    with pytest.raises(UserError, match=r"image_root=.*/disk9\b.* a folder .*a zip archive"):
        shown(path=str(folder / "set"), image_root=[str(folder / "disk0"), str(folder / "disk9")])
    (folder / "a,b").mkdir()
    (folder / "a,b" / "1.png").write_bytes(png(*RED))
    write(folder / "set", "1.png")
    assert shown(path=str(folder / "set"), image_root=str(folder / "a,b").split(",")) == [RED]
