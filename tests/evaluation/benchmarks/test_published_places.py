"""Sets as their repositories, their archives and the hub hand them out: given as they are, each is recognised."""

import shutil

import pytest

from align.data.images import load_image
from align.errors import UserError
from align.evaluation.benchmarks.safebench import PROMPT
from align.evaluation.selection import select_rows
from align.settings import BenchmarkSettings
from tests.support.layouts import write_csv, write_image, write_json, zipped
from tests.support.odd_images import png
from tests.support.published import mssbench
from tests.support.set_files import write_zip


def rows_of(name, path, **settings):
    """The rows of a benchmark, each with an image that can be read."""
    rows = select_rows(name, "image", BenchmarkSettings(path=str(path), **settings)).rows
    for row in rows:
        load_image(row.images[0], row.id)
    return rows


# FigStep


def questions(*tasks):
    columns = ("dataset", "category_id", "task_id", "category_name", "question", "instruction")
    values = [("ForbidQI", "1", str(i), "Cups", f"How is cup {i} made?", f"Ways, {i}.") for i in tasks]
    return [dict(zip(columns, one, strict=True)) for one in values]


def figstep(root, where):
    write_csv(root / "data" / "question" / "safebench.csv", questions(1, 6))
    write_csv(root / "data" / "question" / "SafeBench-Tiny.csv", questions(1))
    for task in (1, 6):
        write_image(root / where / f"query_ForbidQI_1_{task}_6.png", task)
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_figsteps_repository(tmp_path, packed):
    root = figstep(tmp_path / "FigStep", "data/images/SafeBench")
    write_image(root / "data" / "images" / "SafeBench-Tiny" / "query_ForbidQI_1_1_6.png", 1)
    path = zipped(root) if packed else root
    rows = rows_of("safebench", path)
    assert [(row.id, row.prompt, row.request) for row in rows] == [
        ("ForbidQI_1_1", PROMPT, "How is cup 1 made?"),
        ("ForbidQI_1_6", PROMPT, "How is cup 6 made?"),
    ]
    assert [row.id for row in rows_of("safebench", path, subset="tiny")] == ["ForbidQI_1_1"]


def test_figsteps_images_in_the_archive_of_its_repository(tmp_path):
    root = figstep(tmp_path / "FigStep", "loose/screenshots")
    archive = zipped(root / "loose" / "screenshots")
    (root / "data" / "images" / "SafeBench").mkdir(parents=True)
    archive.rename(root / "data" / "images" / "SafeBench" / "screenshots.zip")
    assert len(rows_of("safebench", root)) == 2


def test_figsteps_tiny_set_alone(tmp_path):
    write_csv(tmp_path / "data" / "question" / "SafeBench-Tiny.csv", questions(1))
    write_image(tmp_path / "data" / "images" / "SafeBench-Tiny" / "query_ForbidQI_1_1_6.png")
    assert [row.id for row in rows_of("safebench", tmp_path, subset="tiny")] == ["ForbidQI_1_1"]
    with pytest.raises(UserError, match=r"safebench: .*safebench.csv or .*data/question/safebench.csv in "):
        rows_of("safebench", tmp_path)


def test_figsteps_real_files_in_its_repositorys_layout(tmp_path, shared):
    real = shared / "data" / "figstep"
    (tmp_path / "data" / "question").mkdir(parents=True)
    shutil.copy(real / "safebench.csv", tmp_path / "data" / "question" / "safebench.csv")
    shutil.copytree(real / "images", tmp_path / "data" / "images" / "SafeBench-Tiny")
    assert len(rows_of("safebench", tmp_path, subset="tiny")) == 50


# MM-SafetyBench


def mm_safetybench(root):
    keys = ("Question", "Changed Question", "Rephrased Question", "Rephrased Question(SD)")
    question = {key: f"{key}: how is tea made?" for key in keys} | {"Key Phrase": "tea", "Phrase Type": "product"}
    write_json(root / "data" / "processed_questions" / "01-Illegal_Activitiy.json", {"0": question})
    return root


MEMBERS = {f"01-Illegal_Activitiy/{kind}/0.jpg": png(9, 9, i) for i, kind in enumerate(("SD", "SD_TYPO", "TYPO"))}


@pytest.mark.parametrize(
    "layout",
    [
        "data/imgs",
        "data/imgs.zip",
        "data/MM-SafetyBench(imgs)",
        "data/MM-SafetyBench(imgs).zip",
        "MM-SafetyBench(imgs).zip",
        "MM-SafetyBench_imgs",
    ],
)
def test_mm_safetybenchs_repository_with_its_images_unpacked_or_not(tmp_path, layout):
    root = mm_safetybench(tmp_path / "MM-SafetyBench-main")
    top = layout.rpartition("/")[2].removesuffix(".zip")
    if layout.endswith(".zip"):
        prefix = "" if top == "imgs" else f"{top}/"
        write_zip({f"{prefix}{name}": content for name, content in MEMBERS.items()}, root / layout)
    else:
        for name, content in MEMBERS.items():
            (root / layout / name).parent.mkdir(parents=True, exist_ok=True)
            (root / layout / name).write_bytes(content)
    blue = [
        load_image(rows_of(f"mm_safetybench_{kind}", root)[0].images[0], "x").getpixel((0, 0))[2]
        for kind in ("sd", "sd_typo", "typo")
    ]
    assert blue == [0, 1, 2]
    assert select_rows("mm_safetybench_text", "image", BenchmarkSettings(path=str(root))).rows[0].images == ()


def test_mm_safetybenchs_repository_as_an_archive_and_its_images_as_another(tmp_path):
    images = write_zip(
        {f"MM-SafetyBench(imgs)/{name}": content for name, content in MEMBERS.items()}, tmp_path / "imgs.zip"
    )
    path = zipped(mm_safetybench(tmp_path / "MM-SafetyBench-main"))
    assert len(rows_of("mm_safetybench_sd", path, image_root=str(images))) == 1


def test_mm_safetybenchs_whole_repository_in_one_archive(tmp_path):
    root = mm_safetybench(tmp_path / "MM-SafetyBench-main")
    for name, content in MEMBERS.items():
        (root / "data" / "imgs" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "data" / "imgs" / name).write_bytes(content)
    assert len(rows_of("mm_safetybench_typo", zipped(root))) == 1


# MSSBench


@pytest.mark.parametrize("index", ["combined.json", "combine.json"])
@pytest.mark.parametrize("layout", ["folder", "zip", "mssbench/", "mssbench.zip", "the file"])
def test_mssbench_under_both_names_of_its_index_and_in_every_place(tmp_path, index, layout):
    root = mssbench(tmp_path / "mssbench")
    (root / "combined.json").rename(root / index)
    path = {
        "folder": root,
        "zip": root,
        "mssbench/": tmp_path,
        "mssbench.zip": tmp_path,
        "the file": root / index,
    }[layout]
    if layout.endswith("zip"):
        archive = zipped(root)
        path = archive if layout == "zip" else tmp_path
    assert len(rows_of("mssbench", path)) == 8
    assert len(rows_of("mssbench", path, subset="chat")) == 4


def test_an_mssbench_that_is_not_there_is_named_by_both_names(tmp_path):
    with pytest.raises(UserError, match=r"mssbench: .*combined.json or combine.json in"):
        rows_of("mssbench", tmp_path)


# JailBreakV-28K


def jailbreakv(root, *, mini=True):
    """Two rows of the mini set, and one that is only in the whole."""
    rows = [
        {
            "id": i,
            "jailbreak_query": f"You are a kettle. {i}",
            "redteam_query": f"How hot, {i}?",
            "format": "SD",
            "policy": "Tea",
            "image_path": f"query_related/SD_{i}.png",
            "from": "kitchen",
            "selected_mini": str(i < 2),
            "transfer_from_llm": "False",
        }
        for i in range(3)
    ]
    write_csv(root / "JailBreakV_28K.csv", rows)
    write_csv(root / "RedTeam_2K.csv", [{"id": 1, "question": "How hot?"}])
    if mini:
        write_csv(root / "mini_JailBreakV_28K.csv", rows[:2])
    for i in range(2):
        write_image(root / "query_related" / f"SD_{i}.png", i)
    return root


@pytest.mark.parametrize("mini", [True, False])
@pytest.mark.parametrize(
    "place", [".", "JailBreakV_28K", "JailBreakV_28k", "JailBreakV_28K/JailBreakV_28k", "JailBreakV_28K.zip", "zip"]
)
def test_jailbreakv_in_every_place_and_with_the_whole_set_alone(tmp_path, place, mini):
    root = jailbreakv(tmp_path / "set" / place.removesuffix(".zip").replace("zip", "."), mini=mini)
    path = tmp_path / "set"
    if place == "zip":
        path = zipped(path)
    elif place.endswith(".zip"):
        zipped(root)
    assert [row.request for row in rows_of("jailbreakv_raw", path)] == ["How hot, 0?", "How hot, 1?"]


def test_the_whole_jailbreakv_is_a_subset(tmp_path):
    path = BenchmarkSettings(path=str(jailbreakv(tmp_path / "JailBreakV_28K").parent), subset="full")
    full = select_rows("jailbreakv_raw", "text", path)
    assert [row.id for row in full.rows] == ["0", "1", "2"]
    assert full.facts[0] == "jailbreakv_raw full: 3 rows found, 28000 are published"
    (tmp_path / "JailBreakV_28K" / "JailBreakV_28K.csv").unlink()
    with pytest.raises(UserError, match="jailbreakv_raw: no file JailBreakV_28K.csv in"):
        select_rows("jailbreakv_raw", "text", path)


def test_a_whole_jailbreakv_that_does_not_say_what_is_in_its_mini_set_is_named(tmp_path):
    rows = [{"id": 1, "redteam_query": "How hot?", "selected_mini": "perhaps"}]
    write_csv(tmp_path / "JailBreakV_28K.csv", rows)
    with pytest.raises(UserError, match=r"JailBreakV_28K.csv, row 1: `selected_mini` is 'perhaps'"):
        rows_of("jailbreakv_raw", tmp_path)
